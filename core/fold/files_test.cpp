#include "fold/component_file.hpp"

#include "fold/fold_test_support.hpp"

using namespace hansa;
using namespace hansa::fold;

namespace {

PacketContents two_leaves() {
  PacketContents contents;
  contents.channels.push_back({"c", {{"a", raw_code(DType::f32, {5})}, {"b", raw_code(DType::f32, {3})}}});
  return contents;
}

class Counter final : public Stateless<ServerOptimizer> {
 public:
  std::vector<TensorSpec> state(const TensorSpec&) const override { return {}; }
  void step(std::string_view, Index, at::Tensor&, const at::Tensor&, std::span<at::Tensor>) override {}
};
class Remembers final : public Component {
 public:
  std::uint32_t version = 3;
  std::string text = "none";
  at::Tensor tensor = at::zeros({0});
  std::uint32_t state_version() const override { return version; }
  void save(StateWriter& out) const override {
    out.put("text", text);
    out.put("tensor", tensor);
  }
  void load(const StateReader& in, std::uint32_t saved) override {
    REQUIRE(saved == 3);
    CHECK(in.has("text"));
    CHECK_FALSE(in.has("other"));
    text = in.bytes("text");
    tensor = in.tensor("tensor");
  }
};

}  // namespace

TEST_CASE("a packet file written leaf by leaf, in any order and in pieces, is the packet that a writer streams") {
  const TemporaryDirectory folder;
  const std::vector<float> a{1, 2, 3, 4, 5}, b{6, 7, 8};
  const PacketPlan plan(two_leaves());
  AlignedBytes want(plan.total_bytes());
  PacketWriter stream(plan, want.sink());
  stream.write(std::as_bytes(std::span(a)));
  stream.write(std::as_bytes(std::span(b)));
  stream.finish();

  for (const auto& order : {std::vector<int>{0, 1, 2, 3}, {3, 2, 1, 0}, {0, 3, 1, 2}, {2, 3, 0, 1}}) {
    PacketFileWriter file(folder.path() / "packet", two_leaves(), Durability::Process);
    const auto& entries = file.plan().contents().channels[0].entries;
    for (const int piece : order) {
      if (piece == 0) file.put(entries[0].code, 0, std::as_bytes(std::span(a).first(2)));
      if (piece == 1) file.put(entries[0].code, 8, std::as_bytes(std::span(a).subspan(2)));
      if (piece == 2) file.put(entries[1].code, 0, std::as_bytes(std::span(b).first(1)));
      if (piece == 3) file.put(entries[1].code, 4, std::as_bytes(std::span(b).subspan(1)));
    }
    CHECK_FALSE(std::filesystem::exists(folder.path() / "packet"));
    const auto made = file.finish();
    const MappedFile got(folder.path() / "packet");
    CHECK(std::equal(got.bytes().begin(), got.bytes().end(), want.bytes().begin(), want.bytes().end()));
    CHECK(made.checksum == xxh3_128(want.bytes()));
    CHECK(made.size == want.bytes().size());
    std::filesystem::remove(folder.path() / "packet");
  }
}

TEST_CASE("a packet file with bytes missing, or too many, is refused; dropped, it leaves nothing") {
  const TemporaryDirectory folder;
  const std::vector<float> a{1, 2, 3, 4, 5};
  {
    PacketFileWriter file(folder.path() / "packet", two_leaves(), Durability::Process);
    const auto& first = file.plan().contents().channels[0].entries[0].code;
    CHECK_THROWS_WITH(file.put(first, 4, std::as_bytes(std::span(a))), Catch::Contains("do not fit"));
    file.put(first, 0, std::as_bytes(std::span(a)));
    CHECK_THROWS_WITH(file.finish(), Catch::Contains("20 of 32 bytes were written"));
  }
  CHECK(std::filesystem::is_empty(folder.path()));
}

TEST_CASE("the states of components come back as they were saved; stateless ones take no part") {
  const TemporaryDirectory folder;
  Remembers saved;
  saved.text = std::string("bytes\0with zero", 15);
  saved.tensor = tensor_of({1.5f, -2, 3}, {"", DType::f32, {3}});
  ComponentStates states;
  states.save("one", saved);
  states.save("two", Counter());
  states.write(folder.path() / "components", Durability::Process);

  const auto read = ComponentStates::read(folder.path() / "components");
  Remembers back;
  read.load("one", back);
  CHECK(back.text == saved.text);
  CHECK(back.tensor.equal(saved.tensor));
  Counter stateless;
  read.load("two", stateless);
  CHECK_THROWS_WITH(read.load("three", back), "the checkpoint holds no state of three");
}

TEST_CASE("no component with state makes an empty file that reads back empty") {
  const TemporaryDirectory folder;
  ComponentStates().write(folder.path() / "components", Durability::Process);
  CHECK_FALSE(ComponentStates::read(folder.path() / "components").has("one"));
}
