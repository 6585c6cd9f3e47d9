"""What predictions are worth: intervals, tests, calibration."""
