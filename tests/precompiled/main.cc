// What precompiles headers is a program of its own.
int main() { return 0; }
