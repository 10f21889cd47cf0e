/* What tests see of the translator's inside: the one place that says which of its headers
 * that takes. */
#ifndef LIB_BT_H
#define LIB_BT_H

#include "bt/bt_int.h"
#include "bt/tr_int.h"
#include "bt/verify.h"

#endif
