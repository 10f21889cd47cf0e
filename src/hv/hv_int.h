/* Shared by the files of the room; see hv.h. */
#ifndef HV_HV_INT_H
#define HV_HV_INT_H

#include "svm/svm.h"

/* host.c */
extern const struct svm_host hv_svm_host;

#endif
