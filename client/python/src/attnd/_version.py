"""The package's version. tests/checks/python_package.py checks that it equals the project's in CMakeLists.txt."""

VERSION = "0.1.0"
