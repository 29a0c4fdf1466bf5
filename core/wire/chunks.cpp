#include "wire/chunks.hpp"

namespace hansa::wire {
namespace {

constexpr std::uint16_t kWriteMethod = 0;
constexpr std::uint64_t kWord = sizeof(capnp::word);

bool lies_on_words(std::span<const std::byte> bytes) {
  return reinterpret_cast<std::uintptr_t>(bytes.data()) % kWord == 0 && bytes.size() % kWord == 0;
}

}  // namespace

kj::Promise<void> send_chunk(rpc::ByteSink::Client& sink, std::uint64_t offset, std::span<const std::byte> bytes,
                             std::uint64_t xxh3) {
  const bool by_reference = lies_on_words(bytes);
  const capnp::MessageSize size{16 + (by_reference ? 0 : bytes.size() / kWord + 1), 0};
  auto request = sink.typelessRequest(capnp::typeId<rpc::ByteSink>(), kWriteMethod, size);
  auto params = request.initAs<rpc::ByteSink::WriteParams>();
  params.setOffset(offset);
  params.setXxh3(xxh3);
  const capnp::Data::Reader data(reinterpret_cast<const kj::byte*>(bytes.data()), bytes.size());
  if (by_reference) {
    params.adoptBytes(capnp::Orphanage::getForMessageContaining(params).referenceExternalData(data));
  } else {
    params.setBytes(data);
  }
  return request.send().ignoreResult();
}

}  // namespace hansa::wire
