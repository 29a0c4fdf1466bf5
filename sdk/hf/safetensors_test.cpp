#include "hf/safetensors.hpp"

#include <cstring>
#include <filesystem>

#include "base/digest.hpp"
#include "test.hpp"

using namespace hansa;
using namespace hansa::hf;
using Catch::Matchers::Contains;

namespace {

std::string file_of(const std::string& header, std::size_t data_bytes) {
  std::string text(8, '\0');
  for (int i = 0; i < 8; ++i) text[static_cast<std::size_t>(i)] = static_cast<char>(header.size() >> (8 * i));
  return text + header + std::string(data_bytes, 'x');
}

struct WeightFolder {
  TemporaryDirectory directory;
  std::filesystem::path operator/(const std::string& name) const { return directory.path() / name; }
  void put(const std::string& name, std::string_view bytes) const {
    write_file_atomically(*this / name, bytes, Durability::Process);
  }
  std::string error_of_file(const std::string& bytes) const {
    put("x.safetensors", bytes);
    try {
      const SafetensorsFile file(*this / "x.safetensors");
    } catch (const Error& problem) {
      return problem.what();
    }
    return "";
  }
};

void save(const std::filesystem::path& path, const std::string& name) {
  SafetensorsWriter writer(path, {{name, DType::f32, {2}}});
  const float values[] = {1, 2};
  writer.write(name, std::as_bytes(std::span(values)));
  writer.finish();
}

}  // namespace

TEST_CASE("a safetensors file that was written is read with the same names, types, shapes and bytes") {
  const WeightFolder folder;
  const auto path = folder / "a.safetensors";
  {
    SafetensorsWriter writer(
        path,
        {{"b", DType::i8, {3}}, {"a", DType::f32, {2, 1}}, {"empty", DType::bf16, {0, 4}}, {"scalar", DType::i64, {}}});
    const float floats[] = {1.5f, -2};
    const std::int64_t scalar = 7;
    writer.write("b", std::as_bytes(std::span("xyz", 3)));
    writer.write("a", std::as_bytes(std::span(floats)));
    writer.write("scalar", std::as_bytes(std::span(&scalar, 1)));
    writer.write("empty", {});
    CHECK_FALSE(std::filesystem::exists(path));
    writer.finish();
  }
  const SafetensorsFile file(path);
  CHECK(file.metadata().at("format") == "pt");
  REQUIRE(file.tensors().size() == 4);
  CHECK(file.find("a")->dtype == DType::f32);
  CHECK(file.find("a")->shape == std::vector<std::int64_t>{2, 1});
  CHECK(file.find("empty")->bytes.empty());
  CHECK(file.find("scalar")->elements() == 1);
  CHECK(std::memcmp(file.find("b")->bytes.data(), "xyz", 3) == 0);
  CHECK(file.find("nothing") == nullptr);
  CHECK(std::distance(std::filesystem::directory_iterator(folder.directory.path()), {}) == 1);
}

TEST_CASE("a writer that is not finished leaves nothing behind") {
  const WeightFolder folder;
  {
    SafetensorsWriter writer(folder / "a.safetensors", {{"a", DType::u8, {1}}});
    CHECK_THROWS_WITH(writer.finish(), Contains("'a' was never written"));
    CHECK_THROWS_WITH(writer.write("b", {}), Contains("'b' was not announced"));
    CHECK_THROWS_WITH(writer.write("a", {}), Contains("has 0 bytes, 1 were announced"));
  }
  CHECK(std::filesystem::is_empty(folder.directory.path()));
}

TEST_CASE("a safetensors file that is missing or cut off is refused") {
  const WeightFolder folder;
  CHECK_THROWS_WITH(SafetensorsFile(folder / "none.safetensors"), Contains("none.safetensors"));
  CHECK_THAT(folder.error_of_file(""), Contains("too few"));
  CHECK_THAT(folder.error_of_file("1234567"), Contains("too few"));
  CHECK_THAT(folder.error_of_file(file_of(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", 7)),
             Contains("cut off"));
  CHECK_THAT(folder.error_of_file(file_of(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", 9)),
             Contains("end at byte 8 of the data, but it has 9"));
}

TEST_CASE("a header beyond the file, of absurd length or that is no JSON object is refused") {
  const WeightFolder folder;
  auto beyond = file_of("{}", 0);
  beyond[0] = 100;
  CHECK_THAT(folder.error_of_file(beyond), Contains("reaches beyond the end of the file"));
  CHECK_THAT(folder.error_of_file(std::string(8, '\xff') + "{}"), Contains("not a safetensors file"));
  CHECK_THAT(folder.error_of_file(file_of("[1]", 0)), Contains("not a JSON object"));
  CHECK_THAT(folder.error_of_file(file_of("{\"a\": ", 0)), Contains("not valid JSON"));
  CHECK_THAT(folder.error_of_file(file_of("{\"\xff\": {}}", 0)), Contains("not a JSON object"));
  CHECK_THAT(folder.error_of_file(file_of("{\"a\": 1}", 0)), Contains("'a' is not described"));
  CHECK(folder.error_of_file(file_of("{}   ", 0)).empty());
}

TEST_CASE("offsets that overlap, leave holes, run backwards or do not fit the shape are refused") {
  const WeightFolder folder;
  const auto two = [&](const std::string& a, const std::string& b) {
    return folder.error_of_file(file_of(R"({"a":{"dtype":"U8","shape":[4],"data_offsets":)" + a +
                                            R"(},"b":{"dtype":"U8","shape":[4],"data_offsets":)" + b + "}}",
                                        8));
  };
  CHECK(two("[0,4]", "[4,8]").empty());
  CHECK_THAT(two("[0,4]", "[3,7]"), Contains("'b'") && Contains("overlapping") && Contains("'a'"));
  CHECK_THAT(two("[0,4]", "[0,4]"), Contains("overlapping"));
  CHECK_THAT(two("[1,5]", "[5,9]"), Contains("cut off"));
  CHECK_THAT(two("[4,0]", "[4,8]"), Contains("not a begin and an end"));
  CHECK_THAT(two("[0,5]", "[4,8]"), Contains("need 4 bytes, its offsets give 5"));
  CHECK_THAT(two("[-4,0]", "[4,8]"), Contains("not a list of whole numbers"));
  CHECK_THAT(two("[0,4]", "[4,8,9]"), Contains("not a begin and an end"));
  CHECK_THAT(folder.error_of_file(file_of(R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[2,4]}})", 4)),
             Contains("hole"));
  CHECK_THAT(
      folder.error_of_file(file_of(R"({"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,4]}})", 4)),
      Contains("too many"));
}

TEST_CASE("a dtype that nobody knows is refused, one that only we do not know can stay unread") {
  const WeightFolder folder;
  CHECK_THAT(folder.error_of_file(file_of(R"({"a":{"dtype":"F4","shape":[2],"data_offsets":[0,1]}})", 1)),
             Contains("dtype 'F4' is not known"));
  CHECK_THAT(folder.error_of_file(file_of(R"({"a":{"shape":[2],"data_offsets":[0,1]}})", 1)),
             Contains("dtype is missing"));
  CHECK(folder.error_of_file(file_of(R"({"a":{"dtype":"F64","shape":[1],"data_offsets":[0,8]}})", 8)).empty());
  CHECK_FALSE(SafetensorsFile(folder / "x.safetensors").find("a")->dtype);
}

TEST_CASE("a name that occurs twice in a header is refused") {
  const WeightFolder folder;
  const std::string entry = R"("a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]})";
  CHECK_THAT(folder.error_of_file(file_of("{" + entry + "," + entry + "}", 0)), Contains("\"a\" occurs twice"));
}

TEST_CASE("a checkpoint is one file or the shards of an index") {
  const WeightFolder folder;
  save(folder / "model-1.safetensors", "a");
  save(folder / "model-2.safetensors", "b");
  folder.put("model.safetensors.index.json",
             R"({"metadata":{},"weight_map":{"a":"model-1.safetensors","b":"model-2.safetensors"}})");
  const Checkpoint sharded(folder.directory.path());
  CHECK(sharded.names() == std::vector<std::string>{"a", "b"});
  CHECK(sharded.at("b").bytes.size() == 8);
  CHECK_THROWS_WITH(sharded.at("c"), Contains("no tensor 'c'"));
  save(folder / "model.safetensors", "c");
  CHECK(Checkpoint(folder.directory.path()).names() == std::vector<std::string>{"c"});
}

TEST_CASE("an index that leads astray is refused") {
  const WeightFolder folder;
  save(folder / "one.safetensors", "a");
  save(folder / "two.safetensors", "a");
  const auto error = [&](const std::string& map) {
    folder.put("model.safetensors.index.json", R"({"weight_map":)" + map + "}");
    try {
      Checkpoint{folder.directory.path()};
    } catch (const Error& problem) {
      return std::string(problem.what());
    }
    return std::string();
  };
  CHECK_THAT(error(R"({"a":"../one.safetensors"})"), Contains("leads out of the directory"));
  CHECK_THAT(error(R"({"a":"/etc/passwd"})"), Contains("leads out of the directory"));
  CHECK_THAT(error(R"({"a":".."})"), Contains("leads out of the directory"));
  CHECK_THAT(error(R"({"a":1})"), Contains("not a text"));
  CHECK_THAT(error("[]"), Contains("weight_map"));
  CHECK_THAT(error(R"({"a":"one.safetensors","b":"three.safetensors"})"), Contains("three.safetensors is missing"));
  CHECK_THAT(error(R"({"a":"one.safetensors","b":"one.safetensors"})"), Contains("'b' is not in"));
  CHECK_THAT(error(R"({"a":"one.safetensors","b":"two.safetensors"})"), Contains("'a' is in two"));
}

TEST_CASE("a directory with weights for pickle only says how to convert them") {
  const WeightFolder folder;
  CHECK_THROWS_WITH(Checkpoint(folder.directory.path()), Contains("has no weights"));
  folder.put("pytorch_model.bin", "x");
  CHECK_THROWS_WITH(Checkpoint(folder.directory.path()), Contains("save_pretrained"));
}

TEST_CASE("the digest of a checkpoint changes with its config and with its weights") {
  const WeightFolder folder;
  save(folder / "model.safetensors", "a");
  folder.put("config.json", "{}");
  const auto first = checkpoint_digest(folder.directory.path());
  CHECK(first == checkpoint_digest(folder.directory.path()));
  CHECK(first.size() == 64);
  folder.put("config.json", "{ }");
  const auto second = checkpoint_digest(folder.directory.path());
  CHECK(second != first);
  save(folder / "model.safetensors", "b");
  CHECK(checkpoint_digest(folder.directory.path()) != second);
}
