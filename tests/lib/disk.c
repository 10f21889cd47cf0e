#include "lib/disk.h"

#include "lib/unit.h"

void disk_rig_open(struct disk_rig *rig) {
    struct block_host host = {0};

    memset(rig, 0, sizeof(*rig));
    assert_int_equal(os_loop_new(&rig->loop), 0);
    host.loop = rig->loop;
    assert_int_equal(block_pool_new(&host, &rig->pool), 0);
}

void disk_rig_close(struct disk_rig *rig) {
    block_pool_free(rig->pool);
    os_loop_free(rig->loop);
}

struct block *disk_try(struct disk_rig *rig, const struct block_spec *spec, char *why) {
    struct block *b = NULL;

    why[0] = 0;
    if (block_open(spec, &b, why, DISK_WHY)) {
        assert_null(b);
        assert_true(*why && strlen(why) < DISK_WHY - 1);
        return NULL;
    }
    block_attach(b, rig->pool);
    return b;
}

struct block *disk_must(struct disk_rig *rig, const struct block_spec *spec) {
    char why[DISK_WHY];
    struct block *b = disk_try(rig, spec, why);

    if (!b)
        fail_msg("%s", why);
    return b;
}

void disk_done(struct block_request *r, int rc) {
    struct disk_request *q = container_of(r, struct disk_request, r);

    q->rc = rc;
    q->calls++;
    if (q->rig->wanted && !--q->rig->wanted)
        os_loop_stop(q->rig->loop);
}

void disk_begin(struct disk_rig *rig, struct block *b, struct disk_request *q,
                enum block_op op, uint64_t offset, void *buf, size_t len) {
    q->rig = rig;
    q->rc = 1;
    q->calls = 0;
    q->one = (struct block_iov){buf, len};
    q->r = (struct block_request){
        .op = op, .offset = offset, .length = len, .iov = &q->one, .iov_count = 1};
    q->r.done = disk_done;
    block_submit(b, &q->r);
}

void disk_wait(struct disk_rig *rig, unsigned count) {
    rig->wanted = count;
    if (count)
        os_loop_run(rig->loop);
}

int disk_do(struct disk_rig *rig, struct block *b, enum block_op op, uint64_t offset,
            void *buf, size_t len) {
    struct disk_request q;

    disk_begin(rig, b, &q, op, offset, buf, len);
    disk_wait(rig, 1);
    return q.rc;
}
