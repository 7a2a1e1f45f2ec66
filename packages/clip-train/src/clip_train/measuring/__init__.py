"""What a run takes: the parts of a step, the processes beside each other, the share of the device's peak."""
