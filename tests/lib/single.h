/* The guest of a program that has one. */
#ifndef LIB_SINGLE_H
#define LIB_SINGLE_H

#include "lib/guest.h"

extern struct guest G;

#endif
