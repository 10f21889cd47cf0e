/* What tests see of the translator's inside: the one place that says which of its headers
 * that takes. */
#ifndef LIB_BT_H
#define LIB_BT_H

#include "bt/bt_int.h"
#include "tr/tr_int.h"
#include "verify/verify.h"

#endif
