// A node that misbehaves: joins a coordinator and does one kind of mischief in each piece of work, in the order given, then
// behaves. Speaks the schema itself, because wire::Client would not do such things. Prints one line for each answer it gets:
//
//   rogue ADDRESS HELLO.json nan,layout,…      HELLO.json: node, base, tokenizer, plugins {id: version}
//
// Uploads are raw fp32: for runs without codecs. Ends with 0 when the coordinator says that the run is over.
#include <capnp/ez-rpc.h>
#include <hansa.capnp.h>

#include <fstream>
#include <iostream>
#include <limits>
#include <optional>
#include <sstream>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/digest.hpp"
#include "pipeline/work_order.hpp"
#include "tensor/packet.hpp"

namespace {

using namespace hansa;
namespace rpc = wire::rpc;
using Bytes = std::vector<std::byte>;

Bytes packet_of(const Layout& layout, float value) {
  const PacketPlan plan({{}, {raw_channel(std::string("adapter"), layout)}});
  Bytes bytes;
  PacketWriter writer(plan,
                      [&](std::span<const std::byte> more) { bytes.insert(bytes.end(), more.begin(), more.end()); });
  for (const auto& tensor : layout.tensors) {
    const std::vector<float> values(static_cast<std::size_t>(tensor.elements()), value);
    writer.write(std::as_bytes(std::span(values)));
  }
  writer.finish();
  return bytes;
}

class Rogue {
 public:
  Rogue(const std::string& address, const nlohmann::json& hello)
      : client_(address), session_(nullptr), io_(client_.getWaitScope()) {
    auto request = client_.getMain<rpc::Coordinator>().joinRequest();
    auto to = request.initHello();
    to.initProtocol().setMajor(wire_major(hello));
    to.setNode(hello.at("node").get<std::string>());
    to.setBaseDigest(hello.at("base").get<std::string>());
    to.setTokenizerDigest(hello.at("tokenizer").get<std::string>());
    to.setExamples(1);
    auto plugins = to.initPlugins(static_cast<unsigned>(hello.at("plugins").size()));
    unsigned i = 0;
    for (const auto& [id, version] : hello.at("plugins").items()) {
      plugins[i].setId(id);
      plugins[i++].setVersion(version.get<std::string>());
    }
    auto answer = request.send().wait(io_);
    joined_ = !told("join", answer.getFault());
    if (joined_) session_ = answer.getSession();
  }
  bool joined() const { return joined_; }

  int work(std::vector<std::string> mischief) {
    std::uint64_t holds = std::numeric_limits<std::uint64_t>::max();
    for (std::size_t turn = 0;; ++turn) {
      auto request = session_.nextWorkRequest();
      request.setHoldsEpoch(holds);
      auto answer = request.send().wait(io_);
      if (told("next", answer.getFault())) return answer.getFault().getCode() == rpc::Fault::Code::FINISHED ? 0 : 1;
      const auto work = answer.getWork();
      holds = work.getBaseEpoch();
      const auto exchange = work.getExchange();
      const auto order =
          pipeline::work_order_from_json({reinterpret_cast<const char*>(exchange.begin()), exchange.size()});
      do_one(turn < mischief.size() ? mischief[turn] : "good", work, order.exchange.up.at(0).layout);
      earlier_.emplace(work.getUpload());
      const auto token = work.getToken();
      earlier_token_.assign(reinterpret_cast<const char*>(token.begin()), token.size());
    }
  }

 private:
  static std::uint16_t wire_major(const nlohmann::json& hello) { return hello.value("major", std::uint16_t{1}); }

  bool told(std::string_view what, rpc::Fault::Reader fault) {
    if (fault.getCode() == rpc::Fault::Code::NONE) return false;
    std::cout << fmt::format("{}: fault {}: {}", what, static_cast<int>(fault.getCode()), fault.getMessage().cStr())
              << std::endl;
    return true;
  }

  void do_one(const std::string& mischief, rpc::Work::Reader work, const Layout& layout) {
    auto upload = work.getUpload();
    const auto good = packet_of(layout, 0.001f);
    if (mischief == "nan") {
      send(mischief, upload, packet_of(layout, std::numeric_limits<float>::quiet_NaN()));
    } else if (mischief == "layout") {
      auto other = layout;
      other.tensors.back().shape = {3};
      send(mischief, upload, packet_of(other, 0.001f));
    } else if (mischief == "names") {
      auto other = layout;
      other.tensors.back().name = "another";
      send(mischief, upload, packet_of(other, 0.001f));
    } else if (mischief == "garbage") {
      send(mischief, upload, Bytes(good.size(), std::byte{0x5a}));
    } else if (mischief == "cut") {  // a packet that ends too early, with the right checksum of what there is
      send(mischief, upload, Bytes(good.begin(), good.begin() + static_cast<std::ptrdiff_t>(good.size() / 2)));
    } else if (mischief == "truncated") {  // fewer bytes than announced
      write(upload, Bytes(good.begin(), good.begin() + 100));
      commit(mischief, upload, good);
      send("truncated, then whole", resumed(work), good);
    } else if (mischief == "checksum") {
      write(upload, good);
      auto other = good;
      other.back() ^= std::byte{1};
      commit(mischief, upload, other);
      send("checksum, then right", resumed(work), good);
    } else if (mischief == "large") {
      send(mischief, upload, Bytes(work.getMaxUploadBytes() + 1));
      send("large, then right", resumed(work), good);
    } else if (mischief == "twice") {
      const auto packet = packet_of(layout, 0.004f);
      send(mischief, upload, packet);
      commit("twice again", upload, packet);
      commit("twice another", upload, good);
    } else if (mischief == "past") {  // the upload of the round before, its token, and then what was asked for
      if (earlier_) commit("past", *earlier_, good);
      auto request = session_.resumeRequest();
      request.setToken(bytes_of(earlier_token_));
      told("past resume", request.send().wait(io_).getFault());
      auto forged = session_.resumeRequest();
      auto token = earlier_token_;
      token[0] = token[0] == 'x' ? 'y' : 'x';
      forged.setToken(bytes_of(token));
      told("forged resume", forged.send().wait(io_).getFault());
      send("past, then right", upload, good);
    } else if (mischief == "silent") {
      std::string until;
      std::cout << "silent" << std::endl;
      std::getline(std::cin, until);  // says nothing until the test lets it
      send("silent, then late", upload, good);
    } else {
      send(mischief, upload, good);
    }
  }

  static kj::ArrayPtr<const kj::byte> bytes_of(const std::string& text) {
    return {reinterpret_cast<const kj::byte*>(text.data()), text.size()};
  }

  rpc::Upload::Client resumed(rpc::Work::Reader work) {
    auto request = session_.resumeRequest();
    request.setToken(work.getToken());
    auto answer = request.send().wait(io_);
    told("resume", answer.getFault());
    resumed_.emplace(kj::mv(answer));
    return resumed_->getWork().getUpload();
  }

  void send(const std::string& what, rpc::Upload::Client upload, const Bytes& bytes) {
    write(upload, bytes);
    commit(what, upload, bytes);
  }

  void write(rpc::Upload::Client upload, const Bytes& bytes) {
    constexpr std::size_t kChunk = 1 << 20;
    for (std::size_t at = 0; at < bytes.size(); at += kChunk) {
      const auto chunk = std::span(bytes).subspan(at, std::min(kChunk, bytes.size() - at));
      auto request = upload.writeRequest();
      request.setOffset(at);
      request.setBytes({reinterpret_cast<const kj::byte*>(chunk.data()), chunk.size()});
      request.setXxh3(xxh3_64(chunk));
      request.send().wait(io_);
    }
  }

  void commit(const std::string& what, rpc::Upload::Client upload, const Bytes& announced) {
    auto request = upload.commitRequest();
    auto info = request.initInfo();
    const auto sum = xxh3_128(announced);
    info.setXxh3High(sum.high);
    info.setXxh3Low(sum.low);
    info.setSize(announced.size());
    info.setFormat(kPacketVersion);
    request.initReport().setExamples(1);
    auto answer = request.send().wait(io_);
    if (told(what, answer.getFault())) return;
    const auto receipt = answer.getReceipt();
    std::cout << fmt::format("{}: {} {}", what, receipt.getAccepted() ? "accepted" : "refused",
                             receipt.getReason().cStr())
              << std::endl;
  }

  capnp::EzRpcClient client_;
  rpc::Session::Client session_;
  kj::WaitScope& io_;
  bool joined_ = false;
  std::optional<rpc::Upload::Client> earlier_;
  std::string earlier_token_;
  std::optional<capnp::Response<rpc::Session::ResumeResults>> resumed_;
};

std::vector<std::string> words(const std::string& list) {
  std::vector<std::string> all;
  std::istringstream in(list);
  for (std::string word; std::getline(in, word, ',');) all.push_back(word);
  return all;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) return 2;
  try {
    std::ifstream hello(argv[2]);
    Rogue rogue(argv[1], nlohmann::json::parse(hello));
    return rogue.joined() ? rogue.work(words(argv[3])) : 1;
  } catch (const kj::Exception& lost) {
    std::cout << "link: " << lost.getDescription().cStr() << std::endl;
  } catch (const std::exception& failed) {
    std::cout << "error: " << failed.what() << std::endl;
  }
  return 1;
}
