// Internal. The blocking half of Client::download.
#pragma once
#include "wire/connection.hpp"

namespace hansa::wire {

Outcome<BlobInfo> download(Connection&, const Offer&, std::size_t pull, DownloadState&, const Sink&);

}  // namespace hansa::wire
