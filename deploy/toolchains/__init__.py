"""Others' compilers, runtimes and emulators, in environments of their own: not beside our pins."""
