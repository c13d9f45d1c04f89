"""What keeps a rank's device busy: noise drawn ahead, questions answered later."""
