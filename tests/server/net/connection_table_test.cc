#include "server/net/connection_table.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "attnd/shm/unique_fd.h"
#include "gtest/gtest.h"

namespace attnd::server {
namespace {

shm::UniqueFd Socket() { return shm::UniqueFd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)); }

TEST(ConnectionTableTest, CountsWhatIsOpen) {
  ConnectionTable table;
  const shm::UniqueFd first = Socket();
  {
    const shm::UniqueFd second = Socket();
    table.Add(first.get(), "a");
    table.Add(second.get(), "b");
    EXPECT_EQ(table.size(), 2U);
  }
  EXPECT_EQ(table.size(), 2U) << "nobody looked";
  EXPECT_EQ(table.CountOf("b"), 1U);
  table.Sweep();
  EXPECT_EQ(table.size(), 1U);
  EXPECT_EQ(table.CountOf("a"), 1U);
  EXPECT_EQ(table.CountOf("b"), 0U);
}

TEST(ConnectionTableTest, AnotherSocketOrFileOfTheSameNumberIsNotIt) {
  ConnectionTable table;
  shm::UniqueFd socket = Socket();
  const int number = socket.get();
  table.Add(number, "a");
  socket = shm::UniqueFd();
  socket = Socket();
  ASSERT_EQ(socket.get(), number);
  table.Add(number, "a");
  EXPECT_EQ(table.size(), 1U);
  EXPECT_EQ(table.CountOf("a"), 1U) << "the same peer's next one";
  socket = shm::UniqueFd();
  socket = Socket();
  ASSERT_EQ(socket.get(), number);
  table.Add(number, "b");
  EXPECT_EQ(table.size(), 1U);
  EXPECT_EQ(table.CountOf("a"), 0U) << "its number is another peer's now";
  EXPECT_EQ(table.CountOf("b"), 1U);

  socket = shm::UniqueFd();
  socket = shm::UniqueFd(open("/dev/null", O_RDONLY | O_CLOEXEC));
  ASSERT_EQ(socket.get(), number);
  table.Sweep();
  EXPECT_EQ(table.size(), 0U);
}

}  // namespace
}  // namespace attnd::server
