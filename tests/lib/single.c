#include "lib/single.h"

struct guest G;
