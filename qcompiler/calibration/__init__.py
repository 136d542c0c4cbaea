"""What the compiler learns from calibration feeds: sources of feeds, observers of ranges."""
