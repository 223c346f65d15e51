"""One file per metric: features → numbers. The frozen networks that make features are in `encoders`."""
