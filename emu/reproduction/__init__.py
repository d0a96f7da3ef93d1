"""The paper's claims (Splitwise, ISCA 2024), measured again: in the compatible mode and with the calibrated timing."""
