#include "wire/address.hpp"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <memory>

#include <fmt/format.h>

namespace hansa::wire {
namespace {

constexpr std::string_view kUnixPrefix = "unix:";

Address parse_unix(const std::string& text) {
  const std::string path = text.substr(kUnixPrefix.size());
  sockaddr_un address{};
  if (path.empty() || path.size() >= sizeof address.sun_path) {
    throw Error(fmt::format(
        "The address '{}' cannot be used: the path of a Unix socket has 1 to {} bytes, and this one has {}. "
        "Take a shorter path, such as one under /tmp or /run.",
        text, sizeof address.sun_path - 1, path.size()));
  }
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.data(), path.size());
  Address result{.text = text};
  std::memcpy(&result.socket, &address, sizeof address);
  result.length = sizeof address;
  return result;
}

bool is_loopback(const sockaddr& address) {
  if (address.sa_family == AF_INET) {
    const auto& v4 = reinterpret_cast<const sockaddr_in&>(address);
    return (ntohl(v4.sin_addr.s_addr) >> 24) == 127;
  }
  const auto& v6 = reinterpret_cast<const sockaddr_in6&>(address);
  return IN6_IS_ADDR_LOOPBACK(&v6.sin6_addr) ||
         (IN6_IS_ADDR_V4MAPPED(&v6.sin6_addr) && v6.sin6_addr.s6_addr[12] == 127);
}

Address parse_host_and_port(const std::string& text, Exposure exposure) {
  const auto colon = text.rfind(':');
  std::string host = colon == std::string::npos ? text : text.substr(0, colon);
  const std::string port = colon == std::string::npos ? "" : text.substr(colon + 1);
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') host = host.substr(1, host.size() - 2);
  const bool is_number = !port.empty() && port.size() <= 5 && port.find_first_not_of("0123456789") == std::string::npos;
  if (host.empty() || !is_number || std::stoul(port) > 65535) {
    throw Error(
        fmt::format("'{}' is not an address. Write HOST:PORT with a port from 0 to 65535 (127.0.0.1:4600, [::1]:4600) "
                    "or unix:PATH.",
                    text));
  }
  const addrinfo hints{.ai_flags = AI_NUMERICSERV, .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
  addrinfo* found = nullptr;
  if (const int failure = getaddrinfo(host.c_str(), port.c_str(), &hints, &found)) {
    throw Error(fmt::format("The host of the address '{}' is not known: {}.", text, gai_strerror(failure)));
  }
  const std::unique_ptr<addrinfo, void (*)(addrinfo*)> owner(found, freeaddrinfo);
  if (exposure == Exposure::LocalOnly && !is_loopback(*found->ai_addr)) {
    throw Error(
        fmt::format("The address '{}' is not on this machine, and the connection is not encrypted: model updates and "
                    "the base could be read and changed on the way. Use a loopback address (127.0.0.1, ::1), a Unix "
                    "socket or a tunnel (ssh -L); or, on a network that you trust entirely, --insecure-plaintext.",
                    text));
  }
  Address result{.text = text};
  std::memcpy(&result.socket, found->ai_addr, found->ai_addrlen);
  result.length = found->ai_addrlen;
  return result;
}

FileDescriptor make_socket(const Address& address) {
  FileDescriptor fd(socket(address.socket.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) throw_errno("making a socket for", address.text);
  return fd;
}

const sockaddr* generic(const Address& address) { return reinterpret_cast<const sockaddr*>(&address.socket); }

void clear_stale_socket(const Address& address) {
  const std::string path = address.text.substr(kUnixPrefix.size());
  struct stat status {};
  if (lstat(path.c_str(), &status) != 0) return;
  if (!S_ISSOCK(status.st_mode)) {
    throw Error(
        fmt::format("Cannot listen on '{}': there is a file of that name which is not a socket. Move it away, or take "
                    "another path.",
                    address.text));
  }
  const FileDescriptor probe = make_socket(address);
  if (connect(probe.get(), generic(address), address.length) == 0 || errno == EAGAIN || errno == EINPROGRESS) {
    throw Error(fmt::format("Cannot listen on '{}': another process listens there. Stop it, or take another path.",
                            address.text));
  }
  if (unlink(path.c_str()) != 0 && errno != ENOENT) throw_errno("removing the stale socket", path);
}

}  // namespace

Address parse_address(const std::string& text, Exposure exposure) {
  return text.starts_with(kUnixPrefix) ? parse_unix(text) : parse_host_and_port(text, exposure);
}

std::string to_text(const sockaddr_storage& socket, socklen_t length) {
  if (socket.ss_family == AF_UNIX) {
    const auto& address = reinterpret_cast<const sockaddr_un&>(socket);
    const bool named = length > offsetof(sockaddr_un, sun_path);
    return std::string(kUnixPrefix) + (named ? address.sun_path : "");
  }
  char buffer[INET6_ADDRSTRLEN] = {};
  if (socket.ss_family == AF_INET) {
    const auto& address = reinterpret_cast<const sockaddr_in&>(socket);
    inet_ntop(AF_INET, &address.sin_addr, buffer, sizeof buffer);
    return fmt::format("{}:{}", buffer, ntohs(address.sin_port));
  }
  const auto& address = reinterpret_cast<const sockaddr_in6&>(socket);
  inet_ntop(AF_INET6, &address.sin6_addr, buffer, sizeof buffer);
  return fmt::format("[{}]:{}", buffer, ntohs(address.sin6_port));
}

FileDescriptor listen_on(const Address& address) {
  FileDescriptor fd = make_socket(address);
  if (address.is_unix()) {
    clear_stale_socket(address);
  } else {
    const int on = 1;  // else a coordinator could not be started again for a minute
    setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  }
  if (bind(fd.get(), generic(address), address.length) != 0) {
    if (errno == EADDRINUSE) {
      throw Error(
          fmt::format("Cannot listen on '{}': the port is in use. Stop the process that has it (`ss -ltnp` shows it), "
                      "take another port, or port 0 for a free one.",
                      address.text));
    }
    throw_errno("listening on", address.text);
  }
  // Nobody can connect before listen(), so there is no moment at which others could.
  if (address.is_unix() && chmod(address.text.c_str() + kUnixPrefix.size(), 0600) != 0) {
    throw_errno("restricting the socket", address.text);
  }
  if (listen(fd.get(), SOMAXCONN) != 0) {
    if (errno == EADDRINUSE) throw Error(fmt::format("Cannot listen on '{}': the port is in use.", address.text));
    throw_errno("listening on", address.text);
  }
  return fd;
}

Address bound_address(int fd) {
  Address result;
  result.length = sizeof result.socket;
  getsockname(fd, reinterpret_cast<sockaddr*>(&result.socket), &result.length);
  result.text = to_text(result.socket, result.length);
  return result;
}

std::string describe_peer(int fd) {
  sockaddr_storage socket{};
  socklen_t length = sizeof socket;
  if (getpeername(fd, reinterpret_cast<sockaddr*>(&socket), &length) != 0) return "a peer that has gone";
  if (socket.ss_family != AF_UNIX) return to_text(socket, length);
  const Address here = bound_address(fd);
  ucred credentials{};
  socklen_t size = sizeof credentials;
  getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &size);
  return fmt::format("{} (pid {}, uid {})", here.text, credentials.pid, credentials.uid);
}

void prepare_connection(int fd) {
  const int on = 1, idle_seconds = 30, interval_seconds = 10, probes = 3;
  setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_seconds, sizeof idle_seconds);
  setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval_seconds, sizeof interval_seconds);
  setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof probes);
}

}  // namespace hansa::wire
