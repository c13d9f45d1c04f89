"""What tests share: programs that end with their test, small stacks, models and trainings."""
