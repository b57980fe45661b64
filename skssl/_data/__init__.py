"""From what the user gives to images, labels and what is trained on."""
