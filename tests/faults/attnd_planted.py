"""What planted.h is to C++, for the copy of the Python package that scripts/planted_faults.sh makes."""

import os

_chosen = int(os.environ.get("ATTND_PLANTED_FAULT", "0"))
_folder = os.environ.get("ATTND_PLANTED_REACHED")
_noted: set[int] = set()


def is_planted(fault: int) -> bool:
    """Whether the code in force is this fault: the one that ATTND_PLANTED_FAULT names."""
    if _chosen:
        return _chosen == fault
    if _folder and fault not in _noted:
        _noted.add(fault)
        with open(os.path.join(_folder, str(fault)), "w"):
            pass
    return False
