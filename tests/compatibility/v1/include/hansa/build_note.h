/* What a file was built for, as text of `key=value` lines, and the ELF note that carries it. hansa_add_plugin compiles
 * one source with the plugin's own flags that uses this; the host compiles its own text from the same macros and compares
 * before it loads anything. Keys before "build" must agree; the rest is for people. */
#ifndef HANSA_BUILD_NOTE_H
#define HANSA_BUILD_NOTE_H
#include <hansa/plugin.h>

#ifdef __cplusplus
#include <cstddef> /* _GLIBCXX_RELEASE and friends */
#endif
#if __has_include(<torch/headeronly/version.h>)
#include <torch/headeronly/version.h>
#elif __has_include(<torch/version.h>)
#include <torch/version.h>
#endif

#define HANSA_STRING_(x) #x
#define HANSA_STRING(x) HANSA_STRING_(x)

#if defined(__SANITIZE_ADDRESS__)
#define HANSA_NOTE_SANITISER "address"
#elif defined(__SANITIZE_HWADDRESS__)
#define HANSA_NOTE_SANITISER "hwaddress"
#elif defined(__SANITIZE_THREAD__)
#define HANSA_NOTE_SANITISER "thread"
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define HANSA_NOTE_SANITISER "address"
#elif __has_feature(thread_sanitizer)
#define HANSA_NOTE_SANITISER "thread"
#elif __has_feature(memory_sanitizer)
#define HANSA_NOTE_SANITISER "memory"
#endif
#endif
#ifndef HANSA_NOTE_SANITISER
#define HANSA_NOTE_SANITISER "none"
#endif

#if defined(_LIBCPP_VERSION)
#define HANSA_NOTE_CXX_LIBRARY "libc++"
#elif defined(__GLIBCXX__)
#define HANSA_NOTE_CXX_LIBRARY "libstdc++"
#else
#define HANSA_NOTE_CXX_LIBRARY "none"
#endif
#if defined(_GLIBCXX_USE_CXX11_ABI) && _GLIBCXX_USE_CXX11_ABI == 0
#define HANSA_NOTE_CXX_STRINGS "old"
#else
#define HANSA_NOTE_CXX_STRINGS "cxx11"
#endif
#if defined(_GLIBCXX_DEBUG)
#define HANSA_NOTE_DEBUG_CONTAINERS "yes"
#else
#define HANSA_NOTE_DEBUG_CONTAINERS "no"
#endif
#if defined(NDEBUG)
#define HANSA_NOTE_BUILD "release"
#else
#define HANSA_NOTE_BUILD "debug"
#endif
#if !defined(TORCH_VERSION)
#define TORCH_VERSION "none"
#endif
#if !defined(HANSA_NOTE_CUDA) /* the LibTorch that is linked: "yes" or "no" */
#define HANSA_NOTE_CUDA "no"
#endif
#if !defined(HANSA_NOTE_VERSION)
#define HANSA_NOTE_VERSION "unknown"
#endif

/* kinds: "kind.aggregator/1=<hash of its header>\n" for each interface */
#define HANSA_NOTE_TEXT(kinds)                                         \
  "contract=" HANSA_STRING(HANSA_ABI_MAJOR) "." HANSA_STRING(          \
      HANSA_ABI_MINOR) "\n" kinds "torch=" TORCH_VERSION               \
                       "\n"                                            \
                       "torch_cuda=" HANSA_NOTE_CUDA                   \
                       "\n"                                            \
                       "cxx_library=" HANSA_NOTE_CXX_LIBRARY           \
                       "\n"                                            \
                       "cxx_strings=" HANSA_NOTE_CXX_STRINGS           \
                       "\n"                                            \
                       "debug_containers=" HANSA_NOTE_DEBUG_CONTAINERS \
                       "\n"                                            \
                       "sanitiser=" HANSA_NOTE_SANITISER               \
                       "\n"                                            \
                       "build=" HANSA_NOTE_BUILD                       \
                       "\n"                                            \
                       "compiler=" __VERSION__                         \
                       "\n"                                            \
                       "hansa=" HANSA_NOTE_VERSION "\n"

#define HANSA_NOTE_NAME "Hansa"
#define HANSA_NOTE_TYPE 1

/* The ELF note; see `readelf -n`. */
#define HANSA_DEFINE_NOTE(kinds)                                                                                    \
  struct HansaNote {                                                                                                \
    uint32_t name_size, text_size, type;                                                                            \
    char name[8];                                                                                                   \
    char text[sizeof(HANSA_NOTE_TEXT(kinds))];                                                                      \
  };                                                                                                                \
  __attribute__((section(HANSA_NOTE_SECTION), used, aligned(4))) static const struct HansaNote hansa_build_note = { \
      sizeof(HANSA_NOTE_NAME), sizeof(HANSA_NOTE_TEXT(kinds)), HANSA_NOTE_TYPE, HANSA_NOTE_NAME,                    \
      HANSA_NOTE_TEXT(kinds)};

#endif
