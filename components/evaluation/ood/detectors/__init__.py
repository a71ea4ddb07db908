"""OOD detectors, one file each. A file's name is the detector's; it defines DETECTOR (see base.py)."""
