// Internal. Between messages.hpp and the generated classes. Readers are copied out at once; unknown enumerants of a newer
// peer become the nearest thing that is safe. I/O thread.
#pragma once
#include <kj/array.h>

#include <span>

#include "hansa.capnp.h"
#include "wire/messages.hpp"

namespace hansa::wire {

inline std::span<const std::byte> bytes_of(capnp::Data::Reader data) {
  return {reinterpret_cast<const std::byte*>(data.begin()), data.size()};
}
inline capnp::Data::Reader data_of(std::string_view text) {
  return {reinterpret_cast<const kj::byte*>(text.data()), text.size()};
}
inline std::string string_of(capnp::Data::Reader data) {
  return {reinterpret_cast<const char*>(data.begin()), data.size()};
}
inline std::string string_of(capnp::Text::Reader text) { return {text.begin(), text.size()}; }
inline kj::StringPtr text_of(const std::string& text) { return {text.c_str(), text.size()}; }

void write(rpc::Fault::Builder, const Fault&);
void write(rpc::Hello::Builder, const Hello&);
void write(rpc::Welcome::Builder, const Welcome&);
void write(rpc::BlobInfo::Builder, const BlobInfo&);
void write(rpc::Report::Builder, const Report&);
void write(rpc::Receipt::Builder, const Receipt&);
void write(rpc::Progress::Builder, const Progress&);
void write(rpc::Directive::Builder, const Directive&);
void write(rpc::Work::Builder, const WorkInfo&);  // all but the capabilities

Fault read(rpc::Fault::Reader);
Hello read(rpc::Hello::Reader);
Welcome read(rpc::Welcome::Reader);
BlobInfo read(rpc::BlobInfo::Reader);
Report read(rpc::Report::Reader);
Receipt read(rpc::Receipt::Reader);
Progress read(rpc::Progress::Reader);
Directive read(rpc::Directive::Reader);
WorkInfo read(rpc::Work::Reader);

// A result's `fault` field, when it says something.
template <class Results>
std::optional<Fault> fault_in(const Results& results) {
  if (!results.hasFault()) return std::nullopt;
  Fault fault = read(results.getFault());
  if (fault.code == FaultCode::None) return std::nullopt;
  return fault;
}

}  // namespace hansa::wire
