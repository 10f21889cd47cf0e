/* What a copy says to who asked for it; see copy.h. */
#ifndef CTL_COPY_WORD_H
#define CTL_COPY_WORD_H

enum copy_word { COPY_WAITS = 1, COPY_RUNS };

#endif
