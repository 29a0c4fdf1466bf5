#pragma once
#include <gloo/opaque.hpp>
