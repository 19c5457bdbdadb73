"""Faults of the machine, made for real: full disks, spoiled files, too few descriptors, too little memory."""
