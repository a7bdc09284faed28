# The README's example is examples/quick.cc to the letter.
file(READ ${ROOT}/README.md readme)
file(READ ${ROOT}/examples/quick.cc example)
string(FIND "${readme}" "```cpp\n${example}```" at)
if(at EQUAL -1)
  message(FATAL_ERROR "README.md does not quote examples/quick.cc as it is")
endif()
