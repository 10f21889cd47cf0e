/* What the engine svm/ asks of its host for memory, in tests: malloc()'s pages, whose
 * physical addresses are their pointers. */
#ifndef LIB_SVMHOST_H
#define LIB_SVMHOST_H

#include "svm/svm.h"

/* For struct svm_host. */
void *svmhost_alloc(void *arg, uint64_t size);
void svmhost_free(void *arg, void *page);
uint64_t svmhost_phys(void *arg, const void *p);
void *svmhost_virt(void *arg, uint64_t at);

/* The same for a CPU whose TLB forgets nothing: a stale translation may lead to a page
 * that was given back, which is kept until svmhost_end(). */
void *svmhost_alloc_kept(void *arg, uint64_t size);
void svmhost_keep(void *arg, void *page);
void svmhost_end(void);

#endif
