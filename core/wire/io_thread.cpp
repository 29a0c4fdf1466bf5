#include "wire/io_thread.hpp"

#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <future>

#include "base/error.hpp"
#include "base/log.hpp"

namespace hansa::wire {

Mailbox::Mailbox() : event_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  if (!event_) throw_errno("making an event descriptor", "eventfd");
}

bool Mailbox::post(kj::Function<void()> task) {
  {
    const std::lock_guard lock(mutex_);
    if (closed_) return false;
    tasks_.push_back(kj::mv(task));
    if (tasks_.size() > 1) return true;  // whoever posted the first has woken the loop
  }
  const std::uint64_t one = 1;
  (void)!::write(event_.get(), &one, sizeof one);  // cannot fail: the counter is far from its limit
  return true;
}

std::vector<kj::Function<void()>> Mailbox::take() {
  std::uint64_t count = 0;
  (void)!::read(event_.get(), &count, sizeof count);
  const std::lock_guard lock(mutex_);
  return std::exchange(tasks_, {});
}

void Mailbox::close() {
  const std::lock_guard lock(mutex_);
  closed_ = true;
}

IoThread::IoThread(const char* name) : mailbox_(std::make_shared<Mailbox>()) {
  std::promise<void> ready;
  auto started = ready.get_future();
  thread_ = std::thread([this, name, &ready] {
    mailbox_->post([&ready] { ready.set_value(); });
    main(name);
  });
  started.get();
}

IoThread::~IoThread() noexcept(false) { stop(); }

void IoThread::stop() {
  if (!thread_.joinable()) return;
  mailbox_->post([this] { stop_requested_->fulfill(); });
  thread_.join();
}

void IoThread::run(kj::Function<void()> task) {
  std::promise<void> done;
  auto finished = done.get_future();
  const bool posted = mailbox_->post([&done, &task] {
    try {
      task();
      done.set_value();
    } catch (...) {
      done.set_exception(std::current_exception());
    }
  });
  if (!posted) throw Error("The I/O thread has been stopped already.");
  finished.get();
}

void IoThread::main(const char* name) {
  prctl(PR_SET_NAME, name);
  auto io = kj::setupAsyncIo();
  io_ = &io;
  kj::TaskSet tasks(*this);
  tasks_ = &tasks;
  auto stop = kj::newPromiseAndFulfiller<void>();
  stop_requested_ = kj::mv(stop.fulfiller);
  kj::UnixEventPort::FdObserver observer(io.unixEventPort, mailbox_->event_.get(),
                                         kj::UnixEventPort::FdObserver::OBSERVE_READ);
  serve_mailbox(observer).exclusiveJoin(kj::mv(stop.promise)).wait(io.waitScope);
  mailbox_->close();
  mailbox_->take();  // dropped here, where their captures may die
  stop_requested_ = nullptr;
}

kj::Promise<void> IoThread::serve_mailbox(kj::UnixEventPort::FdObserver& observer) {
  // Armed before draining, so that a post in between is seen.
  auto readable = observer.whenBecomesReadable();
  for (auto& task : mailbox_->take()) {
    KJ_IF_MAYBE (exception, kj::runCatchingExceptions([&] { task(); })) taskFailed(kj::mv(*exception));
  }
  return readable.then([this, &observer] { return serve_mailbox(observer); });
}

void IoThread::taskFailed(kj::Exception&& exception) {
  if (exception.getType() != kj::Exception::Type::DISCONNECTED) {
    Log().error("wire: " + describe(exception));
  }
}

std::string describe(const kj::Exception& exception) {
  std::string text = exception.getDescription().cStr();
  constexpr std::string_view kPrefixes[] = {"remote exception: ", "std::exception: "};
  for (const auto prefix : kPrefixes) {
    if (text.starts_with(prefix)) text.erase(0, prefix.size());
  }
  return text;
}

}  // namespace hansa::wire
