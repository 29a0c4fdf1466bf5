#include "round/participation.hpp"

#include "round/records.hpp"
#include "test.hpp"

using namespace hansa;

TEST_CASE("a node was part of the rounds that folded its update and were released") {
  std::vector<std::string> journal;
  const auto append = [&](const records::Record& record) { journal.push_back(records::to_json(record)); };
  append(records::Closed{1, 1, {3, 8}});
  append(records::Released{1, 1, {1, 0, {}}});
  append(records::Closed{2, 1, {3, 8}});  // given up after the fold
  append(records::Aborted{2, 1, "the disk"});
  append(records::Closed{2, 2, {3}});
  append(records::Released{2, 2, {2, 0, {}}});
  append(records::Closed{3, 1, {}});  // nobody was drawn
  append(records::Released{3, 1, {3, 0, {}}});
  append(records::Closed{4, 1, {8}});  // never released
  CHECK(rounds_of(3, journal) == std::vector<Round>{1, 2});
  CHECK(rounds_of(8, journal) == std::vector<Round>{1});
  CHECK(rounds_of(5, journal).empty());
}
