"""Networks: what the user gives, made ready for training."""
