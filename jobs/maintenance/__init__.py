"""What runs now and then: the rescuer of lost work, the scheduler of due work, the pruner of old rows."""
