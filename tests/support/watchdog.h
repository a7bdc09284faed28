// Ends a GoogleTest program in which a test does not end, long before ctest's timeout, and names the test.
//
// All programs of attnd_test (cmake/AttndTest.cmake) have it, by main.cc beside this file. It takes no thread, no
// descriptor and no memory, so that tests may count those, use them up, and fork.
#pragma once

namespace attnd::test {

// How long a test may take, and what is before the first one, between two and after the last one: ATTND_TEST_SECONDS of
// the environment, or what the build says (longer with sanitizers).
int TestSeconds();

// Watches this process from here on: whatever exceeds `seconds` is printed to standard error by name, and abort() ends
// the process. A process that does not end by that, because all its threads block the signal, is killed some seconds
// later. Children are not watched unless they call this themselves. Call it once, after testing::InitGoogleTest.
void WatchTests(int seconds);

}  // namespace attnd::test
