#include <stdio.h>

#include "program.h"

int main(void) {
    struct table *t = table_new(4);
    struct node *list = NULL;
    unsigned seed = 1, sum = 0;
    for (int i = 0; i < 2000; i++) {
        char key[16];
        seed = seed * 1103515245u + 12345u;
        snprintf(key, sizeof(key), "k%u", seed % 500);
        table_put(t, key, table_get(t, key) + i);
        list = list_push(list, seed >> 16);
    }
    list = list_sort(list);
    for (int i = 0; list; list = list->next)
        sum = sum * 31 + list->value * ++i;
    char out[400];
    int lines = text_wrap("one two three four five six seven eight nine ten", 12, out,
                          sizeof(out));
    printf("%u %u %d\n%s\n", sum, table_get(t, "k42"), lines, out);
    return 0;
}
