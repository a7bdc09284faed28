"""The package's version: the project's (CMakeLists.txt), as tests/checks/python_package.py checks."""

VERSION = "0.1.0"
