#include "devices/devices.hpp"

#include "test.hpp"

using namespace hansa;
using Catch::Matchers::Contains;

namespace {

std::string name(std::string_view asked, const Devices& here, const Neighbours& neighbours = {}) {
  auto found = device_named(asked, here, neighbours);
  return found ? found.value().str() : found.error();
}
const Devices kPlain{}, kNone{true, 0}, kOne{true, 1}, kFour{true, 4};

}  // namespace

TEST_CASE("auto is the first CUDA device, or the CPU where there is none") {
  CHECK(name("auto", kPlain) == "cpu");
  CHECK(name("auto", kNone) == "cpu");
  CHECK(name("auto", kOne) == "cuda:0");
  CHECK(name("auto", kFour) == "cuda:0");
  CHECK(name("cpu", kFour) == "cpu");
  CHECK(name("cuda:3", kFour) == "cuda:3");
}

TEST_CASE("a device that is not there is refused with what was asked, what there is and what to do") {
  CHECK_THAT(name("cuda:0", kPlain), Contains("device cuda:0 is not there") && Contains("built without CUDA") &&
                                         Contains("\"cpu\"") && Contains("\"auto\""));
  CHECK_THAT(name("cuda:1", kNone), Contains("cuda:1 is not there") && Contains("CUDA_VISIBLE_DEVICES"));
  CHECK_THAT(name("cuda:1", kOne), Contains("there are \"cpu\" and \"cuda:0\""));
  CHECK_THAT(name("cuda:4", kFour), Contains("\"cuda:0\" to \"cuda:3\""));
}

TEST_CASE("what is no device is refused as that") {
  for (const auto* asked : {"", "gpu", "cuda", "cuda:", "cuda:-1", "cuda:1x", "cuda:99999999999999999999999", "CPU"})
    CHECK_THAT(name(asked, kFour), Contains("is no device") && Contains("\"cuda:N\""));
}

TEST_CASE("each of several processes on a machine has a device of its own, and all may share the CPU") {
  CHECK(name("auto", kFour, {3, 4}) == "cuda:3");
  CHECK(name("auto", kPlain, {3, 4}) == "cpu");
  CHECK(name("cpu", kFour, {3, 4}) == "cpu");
  CHECK_THAT(name("auto", kOne, {1, 2}), Contains("cuda:1 is not there") && Contains("2 processes"));
  CHECK_THAT(name("cuda:0", kFour, {1, 2}), Contains("each needs its own"));
}

TEST_CASE("the CPU is always here") {
  CHECK(require_device("cpu").is_cpu());
  CHECK_THROWS_WITH(require_device("cuda:77"), Contains("cuda:77 is not there"));
}
