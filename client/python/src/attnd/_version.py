"""The package's version: that of the project (CMakeLists.txt), which tests/checks/python_package.py holds it to."""

VERSION = "0.1.0"
