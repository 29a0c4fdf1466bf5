#include "tensor/packet.hpp"

#include <cstring>

#include "base/digest.hpp"
#include "base/error.hpp"
#include "base/rng.hpp"
#include "test.hpp"

using namespace hansa;

namespace {

PacketContents sample_contents() {
  Code q = raw_code(DType::i8, {3, 5});
  Code zipped;
  zipped.dtype = DType::i8;
  zipped.shape = {3, 5};
  zipped.coded = true;
  zipped.header = std::string("\x0f\0level", 7);
  zipped.parts = {raw_code(DType::u8, {11})};
  Code int8;
  int8.shape = {3, 5};
  int8.coded = true;
  int8.header = std::string("b");
  int8.parts = {zipped, raw_code(DType::f32, {1})};
  PacketContents contents;
  contents.meta = {{"round", "7"}, {"epoch", "6"}};
  contents.channels.push_back(
      {"adapter", {{"a", raw_code(DType::f32, {4, 7})}, {"empty", raw_code(DType::f32, {0, 3})}, {"b", int8}}});
  contents.channels.push_back({"seeds", {{"s", raw_code(DType::i64, {})}}});
  return contents;
}

std::vector<std::byte> pattern(std::size_t size, std::uint64_t seed) {
  SplitMix64 rng(seed);
  std::vector<std::byte> bytes(size);
  for (auto& b : bytes) b = static_cast<std::byte>(rng.next());
  return bytes;
}

std::vector<std::byte> sample_packet() {
  PacketPlan plan(sample_contents());
  std::vector<std::byte> packet;
  PacketWriter writer(
      plan, [&](std::span<const std::byte> bytes) { packet.insert(packet.end(), bytes.begin(), bytes.end()); });
  for (std::size_t i = 0; i < plan.leaves().size(); ++i) {
    const auto bytes = pattern(plan.leaves()[i]->bytes, i);
    const std::size_t half = bytes.size() / 2;  // in two pieces, to see that pieces work
    writer.write(std::span(bytes).first(half));
    writer.write(std::span(bytes).subspan(half));
  }
  writer.finish();
  REQUIRE(packet.size() == plan.total_bytes());
  return packet;
}

void reseal(std::vector<std::byte>& packet) {  // so that damage reaches the parser and does not stop at the checksum
  std::uint64_t index_bytes;
  std::memcpy(&index_bytes, packet.data() + 16, 8);
  if (index_bytes > packet.size() - 64) return;
  const auto sum = xxh3_64(std::span<const std::byte>(packet).subspan(64, index_bytes));
  std::memcpy(packet.data() + 24, &sum, 8);
}

std::string why(const std::vector<std::byte>& packet) {
  try {
    PacketView view(packet);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

void walk(const PacketView& view, const Code& code) {  // touches every byte that the view hands out
  if (code.coded) {
    for (const auto& part : code.parts) walk(view, part);
    return;
  }
  volatile unsigned sum = 0;
  for (auto b : view.bytes(code)) sum = sum + static_cast<unsigned>(b);
}

}  // namespace

TEST_CASE("a packet gives back what its plan said, aligned, with the bytes written") {
  const auto packet = sample_packet();
  PacketView view(packet);
  CHECK(view.contents() == PacketPlan(sample_contents()).contents());
  CHECK(view.meta("round") == "7");
  CHECK_FALSE(view.meta("node").has_value());
  PacketPlan plan(sample_contents());
  for (std::size_t i = 0; i < plan.leaves().size(); ++i) {
    const auto& leaf = *plan.leaves()[i];
    CHECK(leaf.offset % kPacketAlignment == 0);
    const auto want = pattern(leaf.bytes, i);
    const auto have = view.bytes(leaf);
    CHECK(std::equal(have.begin(), have.end(), want.begin(), want.end()));
  }
  const auto& a = view.find("adapter")->entries[0].code;
  CHECK(view.elements(a, 3, 2).data() == view.bytes(a).data() + 12);
  CHECK(view.elements(a, 28, 0).empty());
  CHECK_THROWS_AS(view.elements(a, 27, 2), Error);
  CHECK_THROWS_AS(view.elements(a, -1, 2), Error);
  CHECK_THROWS_AS(view.bytes(view.find("adapter")->entries[2].code), Error);
}

TEST_CASE("a plan moved elsewhere still writes its leaves") {
  PacketPlan first(sample_contents());
  PacketPlan second(std::move(first));
  AlignedBytes memory(second.total_bytes());
  PacketWriter writer(second, memory.sink());
  for (const auto* leaf : second.leaves()) writer.write(pattern(leaf->bytes, 1));
  writer.finish();
  CHECK(reinterpret_cast<std::uintptr_t>(memory.bytes().data()) % kPacketAlignment == 0);
  CHECK_NOTHROW(PacketView(memory.bytes()));
  CHECK_THROWS_AS(memory.append(pattern(1, 1)), Error);
}

TEST_CASE("an empty packet and one of empty tensors are packets") {
  for (auto contents : {PacketContents{}, PacketContents{{}, {{"c", {{"e", raw_code(DType::f32, {0})}}}}}}) {
    PacketPlan plan(contents);
    AlignedBytes memory(plan.total_bytes());
    PacketWriter(plan, memory.sink()).finish();
    CHECK(PacketView(memory.bytes()).contents().channels.size() == contents.channels.size());
  }
}

TEST_CASE("a writer refuses bytes beyond a leaf and an unfinished packet") {
  PacketPlan plan(sample_contents());
  PacketWriter writer(plan, [](auto) {});
  CHECK_THROWS_WITH(writer.write(pattern(113, 0)), Catch::Contains("beyond leaf 0"));
  writer.write(pattern(112, 0));
  CHECK_THROWS_WITH(writer.finish(), Catch::Contains("finished after"));
}

TEST_CASE("a plan refuses duplicate names and impossible extents") {
  const auto f = raw_code(DType::f32, {2});
  CHECK_THROWS_WITH(PacketPlan({{}, {{"c", {{"x", f}, {"x", f}}}}}), Catch::Contains("'x'"));
  CHECK_THROWS_WITH(PacketPlan({{}, {{"c", {}}, {"c", {}}}}), Catch::Contains("'c'"));
  CHECK_THROWS_WITH(raw_code(DType::f32, {-1}), Catch::Contains("negative"));
  CHECK_THROWS_WITH(raw_code(DType::f32, {1ll << 40, 1ll << 40}), Catch::Contains("overflow"));
  CHECK(raw_code(DType::f32, {1ll << 40, 0, 1ll << 20}).bytes == 0);
}

TEST_CASE("a view says what is wrong with a packet") {
  const auto good = sample_packet();
  auto damaged = [&](auto change) {
    auto packet = good;
    change(packet);
    reseal(packet);
    return why(packet);
  };
  CHECK(why({}) == "packet: truncated: 0 bytes, its head alone has 64");
  CHECK_THAT(damaged([](auto& p) { p[0] = std::byte{'X'}; }), Catch::Contains("not a packet"));
  CHECK_THAT(damaged([](auto& p) { p[8] = std::byte{9}; }), Catch::Contains("format version 9"));
  CHECK_THAT(damaged([](auto& p) { p.pop_back(); }), Catch::Contains("truncated: says"));
  CHECK_THAT(damaged([](auto& p) { p.push_back({}); }), Catch::Contains("too long: says"));
  CHECK_THAT(damaged([](auto& p) { p[23] = std::byte{0x7f}; }), Catch::Contains("does not fit"));
  auto flipped = good;
  flipped[70] ^= std::byte{1};
  CHECK_THAT(why(flipped), Catch::Contains("index is damaged"));
}

TEST_CASE("a view refuses leaves that overlap, lie outside or leave gaps") {
  const auto good = sample_packet();
  const PacketView view(good);
  const auto& second =
      view.find("seeds")->entries[0].code;  // the last leaf: its offset stands near the end of the index
  std::size_t at = 0;
  for (std::size_t i = 64; i + 8 <= good.size() && at == 0; ++i)
    if (std::memcmp(good.data() + i, &second.offset, 8) == 0) at = i;
  REQUIRE(at != 0);
  auto with_offset = [&](std::uint64_t offset) {
    auto packet = good;
    std::memcpy(packet.data() + at, &offset, 8);
    reseal(packet);
    return why(packet);
  };
  CHECK_THAT(with_offset(second.offset - 64), Catch::Contains("overlaps"));
  CHECK_THAT(with_offset(second.offset + 64), Catch::Contains("lies outside"));
  CHECK_THAT(with_offset(~0ull - 4), Catch::Contains("lies outside"));
  CHECK_THAT(with_offset(0), Catch::Contains("overlaps"));
}

TEST_CASE("mutated packets give an error or a view whose bytes can all be read") {
  const auto good = sample_packet();
  std::uint64_t index_bytes;
  std::memcpy(&index_bytes, good.data() + 16, 8);
  SplitMix64 rng(42);
  std::size_t views = 0;
  for (int i = 0; i < 40000; ++i) {
    auto packet = good;
    const auto flips = 1 + rng.below(4);
    for (std::uint64_t f = 0; f < flips; ++f) {
      const auto where = rng.below(10) == 0 ? rng.below(packet.size()) : 64 + rng.below(index_bytes);
      packet[where] = rng.below(2) ? static_cast<std::byte>(rng.next())
                                   : packet[where] ^ static_cast<std::byte>(1u << rng.below(8));
    }
    if (rng.below(8) == 0) packet.resize(rng.below(packet.size() + 1));
    if (packet.size() >= 64) reseal(packet);
    try {
      const PacketView view(packet);
      ++views;
      for (const auto& channel : view.contents().channels)
        for (const auto& entry : channel.entries) walk(view, entry.code);
    } catch (const Error&) {
    }
  }
  CHECK(views > 0);
}

TEST_CASE("difference names the first way in which a channel is not a layout") {
  const Layout layout{{{"a", DType::f32, {2, 3}}, {"list", DType::i64, {-1}}}, {}};
  auto channel = raw_channel("c", Layout{{{"a", DType::f32, {2, 3}}, {"list", DType::i64, {9}}}, {}});
  CHECK_FALSE(difference(channel, layout).has_value());
  auto changed = channel;
  changed.entries[0].name = std::string("z");
  CHECK(difference(changed, layout) == "channel 'c': tensor 0 is 'z' where 'a' belongs");
  changed = channel;
  changed.entries[1].code.dtype = DType::i32;
  CHECK(difference(changed, layout) == "channel 'c': 'list' is i32 where i64 belongs");
  changed = channel;
  changed.entries[0].code.shape = {3, 2};
  CHECK(difference(changed, layout) == "channel 'c': 'a' has shape [3, 2] where [2, 3] belongs");
  changed = channel;
  changed.entries.pop_back();
  CHECK(difference(changed, layout) == "channel 'c': 1 tensors where 2 belong; the first that is missing is 'list'");
}
