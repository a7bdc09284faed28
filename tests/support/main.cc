// The main of all GoogleTest programs.

#include "gmock/gmock.h"
#include "watchdog.h"

int main(int argc, char** argv) {
  testing::InitGoogleMock(&argc, argv);  // and GoogleTest
  attnd::test::WatchTests(attnd::test::TestSeconds());
  return RUN_ALL_TESTS();
}
