/* SPDX-License-Identifier: MIT */
#include "keep/keep.h"

#include "base/error.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U /* Linux 6.3; some machines allow no other */
#endif

#define MAGIC UINT64_C(0x7065656b64736e75) /* "unsdkeep" */
#define PAGE UINT64_C(4096)
/* Nothing of it is there before it is written. */
#define MOST_BYTES (UINT64_C(8) << 30)
#define LEAST_BYTES (UINT64_C(64) << 20)
#define LARGEST (UINT64_C(1) << 30)
#define GRAIN UINT64_C(64)
#define GRAINS 16U /* up to here classes are a grain apart, then four to each power of two */
#define CLASSES 100U
#define LARGE (UINT64_C(128) << 10) /* such ones give their memory back */

enum record_state { FREE, FILLED, COMMITTED };

/* Before what the caller gets. */
struct record {
    _Atomic uint64_t word; /* size with this head << 16 | kind << 8 | state */
    uint64_t place;        /* MAGIC ^ its offset: it is one */
};

struct head {
    uint64_t magic;
    uint32_t layout, spare;
    uint64_t bytes, area_bytes;
    _Atomic uint64_t end; /* of the last record */
};

struct unshard_keep {
    int fd;
    struct head *head; /* the mapping */
    uint64_t bytes, first;
    pthread_mutex_t mutex;
    /* Of mutex: */
    uint64_t free[CLASSES]; /* offsets; the next one stands in what the caller got. 0: none */
};

static uint64_t whole_pages(uint64_t bytes)
{
    return (bytes + PAGE - 1) / PAGE * PAGE;
}

/* ---- sizes -------------------------------------------------------------------------------------
 */

/* Of a size of at most LARGEST, the class and what it is rounded up to. */
static unsigned class_of(uint64_t size, uint64_t *rounded)
{
    if (size <= GRAINS * GRAIN) {
        unsigned grains = (unsigned)((size + GRAIN - 1) / GRAIN);
        *rounded = grains * GRAIN;
        return grains;
    }
    unsigned exponent = 63U - (unsigned)__builtin_clzll(size - 1);
    uint64_t step = (UINT64_C(1) << exponent) / 4;
    unsigned steps = (unsigned)((size - (UINT64_C(1) << exponent) + step - 1) / step);
    *rounded = (UINT64_C(1) << exponent) + steps * step;
    return GRAINS + (exponent - 10U) * 4U + steps;
}

static uint64_t make_word(uint64_t size, unsigned kind, enum record_state state)
{
    return size << 16 | (uint64_t)kind << 8 | state;
}

static uint64_t size_of(const struct record *record)
{
    return atomic_load_explicit(&record->word, memory_order_acquire) >> 16;
}

static struct record *record_at(const struct unshard_keep *keep, uint64_t offset)
{
    return (struct record *)((char *)keep->head + offset);
}

static struct record *record_of(const void *kept)
{
    return (struct record *)(uintptr_t)kept - 1;
}

static uint64_t offset_of(const struct unshard_keep *keep, const struct record *record)
{
    return (uint64_t)((const char *)record - (const char *)keep->head);
}

static bool is_record(const struct unshard_keep *keep, uint64_t offset, uint64_t end)
{
    const struct record *record = record_at(keep, offset);
    uint64_t rounded, size;
    if (end - offset < sizeof *record || record->place != (MAGIC ^ offset))
        return false;
    size = size_of(record);
    if (size < GRAIN || size > LARGEST || size > end - offset)
        return false;
    class_of(size, &rounded);
    return rounded == size;
}

/* ---- the file ----------------------------------------------------------------------------------
 */

static int make_file(void)
{
    int fd = memfd_create("unshard-keep", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL);
    if (fd < 0 && errno == EINVAL)
        fd = memfd_create("unshard-keep", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    return fd < 0 ? -errno : fd;
}

/* Past the limit a signal would end the process. */
static uint64_t allowed_bytes(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_FSIZE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY ||
        limit.rlim_cur > MOST_BYTES)
        return MOST_BYTES;
    return limit.rlim_cur / PAGE * PAGE;
}

/* sharing: MAP_SHARED or MAP_PRIVATE. */
static int map_file(struct unshard_keep *keep, uint64_t bytes, int sharing)
{
    void *mapping = mmap(NULL, bytes, PROT_READ | PROT_WRITE, sharing | MAP_NORESERVE, keep->fd, 0);
    if (mapping == MAP_FAILED)
        return -errno;
    keep->head = mapping;
    keep->bytes = bytes;
    return 0;
}

static int begin(struct unshard_keep *keep, uint64_t area_bytes)
{
    uint64_t bytes = allowed_bytes(), area = whole_pages(area_bytes);
    if (bytes < LEAST_BYTES + area)
        return -EFBIG;
    keep->fd = make_file();
    if (keep->fd < 0)
        return keep->fd;
    if (ftruncate(keep->fd, (off_t)bytes) != 0)
        return -errno;
    fcntl(keep->fd, F_ADD_SEALS, F_SEAL_SHRINK);
    int result = map_file(keep, bytes, MAP_SHARED);
    if (result != 0)
        return result;
    keep->first = PAGE + area;
    *keep->head = (struct head){
        .magic = MAGIC, .layout = KEEP_LAYOUT, .bytes = bytes, .area_bytes = area_bytes};
    atomic_store(&keep->head->end, keep->first);
    return 0;
}

/* Makes it read as zeros, and gives the memory of whole pages back. */
static void clear_range(char *from, uint64_t bytes)
{
    char *first = from + (whole_pages((uintptr_t)from) - (uintptr_t)from), *end = from + bytes;
    char *last = end - (uintptr_t)end % PAGE;
    if (bytes < LARGE || madvise(first, (size_t)(last - first), MADV_REMOVE) != 0) {
        memset(from, 0, bytes);
        return;
    }
    memset(from, 0, (size_t)(first - from));
    memset(last, 0, (size_t)(end - last));
}

static void give_memory_back(struct record *record)
{
    uint64_t size = size_of(record);
    if (size >= LARGE)
        clear_range((char *)(record + 1), size - sizeof *record);
}

/* What is free, or was never committed, can be used again. */
static void find_free(struct unshard_keep *keep, struct record *record)
{
    uint64_t rounded;
    unsigned class = class_of(size_of(record), &rounded);
    atomic_store_explicit(&record->word, make_word(rounded, 0, FREE), memory_order_release);
    give_memory_back(record);
    memcpy(record + 1, &keep->free[class], sizeof keep->free[class]);
    keep->free[class] = offset_of(keep, record);
}

/* Walks through what the process before has left. Behind what makes no sense nothing is found. */
static void find_records(struct unshard_keep *keep)
{
    uint64_t end = atomic_load(&keep->head->end), offset = keep->first;
    while (offset < end && is_record(keep, offset, end)) {
        struct record *record = record_at(keep, offset);
        if ((record->word & 0xff) != COMMITTED)
            find_free(keep, record);
        offset += size_of(record);
    }
    if (offset < end)
        clear_range((char *)keep->head + offset, end - offset);
    atomic_store(&keep->head->end, offset);
}

/* Maps what another process has made. */
static int look(struct unshard_keep *keep, size_t area_bytes, int sharing,
                struct unshard_error *error)
{
    struct stat about;
    if (fstat(keep->fd, &about) != 0 || about.st_size < (off_t)LEAST_BYTES)
        return error_set(error, "keep", EINVAL, "what was kept for this process is not there");
    int result = map_file(keep, (uint64_t)about.st_size, sharing);
    if (result != 0)
        return error_set(error, "keep", -result, "what was kept cannot be mapped: %s",
                         strerror(-result));
    const struct head *head = keep->head;
    if (head->magic != MAGIC || head->layout != KEEP_LAYOUT)
        return error_set(error, "keep-layout", EPROTO,
                         "what was kept is in layout %u, and this version has layout %u",
                         head->magic == MAGIC ? head->layout : 0, KEEP_LAYOUT);
    keep->first = PAGE + whole_pages(area_bytes);
    uint64_t end = atomic_load(&head->end);
    if (head->area_bytes != area_bytes || head->bytes != keep->bytes || end < keep->first ||
        end > keep->bytes)
        return error_set(error, "keep-layout", EPROTO, "what was kept is damaged");
    return 0;
}

static struct unshard_keep *new_keep(void)
{
    struct unshard_keep *keep = calloc(1, sizeof *keep);
    if (keep == NULL)
        return NULL;
    keep->fd = -1;
    pthread_mutex_init(&keep->mutex, NULL);
    return keep;
}

int unshard_keep_new(size_t area_bytes, struct unshard_keep **out, struct unshard_error *error)
{
    struct unshard_keep *keep = new_keep();
    if (keep == NULL)
        return error_no_memory(error);
    int result = begin(keep, area_bytes);
    if (result != 0) {
        unshard_keep_close(keep);
        return error_set(error, "keep", -result,
                         "cannot make the memory that outlives the process: %s", strerror(-result));
    }
    *out = keep;
    return 0;
}

static int open_again(int fd, size_t area_bytes, int sharing, struct unshard_keep **out,
                      struct unshard_error *error)
{
    struct unshard_keep *keep = new_keep();
    if (keep == NULL)
        return error_no_memory(error);
    keep->fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    int result = look(keep, area_bytes, sharing, error);
    if (result != 0)
        unshard_keep_close(keep);
    else
        *out = keep;
    return result;
}

int unshard_keep_look(int fd, size_t area_bytes, struct unshard_keep **out,
                      struct unshard_error *error)
{
    return open_again(fd, area_bytes, MAP_SHARED, out, error);
}

int unshard_keep_take(int fd, size_t area_bytes, struct unshard_keep **out,
                      struct unshard_error *error)
{
    int result = open_again(fd, area_bytes, MAP_SHARED, out, error);
    if (result == 0)
        find_records(*out);
    return result;
}

int unshard_keep_rehearse(int fd, size_t area_bytes, struct unshard_keep **out,
                          struct unshard_error *error)
{
    int result = open_again(fd, area_bytes, MAP_PRIVATE, out, error);
    if (result == 0)
        find_records(*out);
    return result;
}

void unshard_keep_close(struct unshard_keep *keep)
{
    if (keep == NULL)
        return;
    if (keep->head != NULL)
        munmap(keep->head, keep->bytes);
    if (keep->fd >= 0)
        close(keep->fd);
    pthread_mutex_destroy(&keep->mutex);
    free(keep);
}

int unshard_keep_descriptor(const struct unshard_keep *keep)
{
    return keep->fd;
}

void *unshard_keep_area(const struct unshard_keep *keep)
{
    return (char *)keep->head + PAGE;
}

/* ---- records -----------------------------------------------------------------------------------
 */

/* Caller holds the mutex. NULL: there is none of the class. */
static struct record *take_free(struct unshard_keep *keep, unsigned class)
{
    uint64_t offset = keep->free[class];
    if (offset == 0)
        return NULL;
    struct record *record = record_at(keep, offset);
    memcpy(&keep->free[class], record + 1, sizeof keep->free[class]);
    return record;
}

/* Behind the last one. Caller holds the mutex. */
static struct record *append(struct unshard_keep *keep, uint64_t size)
{
    uint64_t end = atomic_load(&keep->head->end);
    if (size > keep->bytes - end)
        return NULL;
    struct record *record = record_at(keep, end);
    record->place = MAGIC ^ end;
    atomic_store_explicit(&record->word, make_word(size, 0, FREE), memory_order_release);
    atomic_store_explicit(&keep->head->end, end + size, memory_order_release);
    return record;
}

void *unshard_keep_add(struct unshard_keep *keep, enum unshard_keep_kind kind, size_t bytes)
{
    uint64_t size;
    if (keep == NULL || bytes > LARGEST - sizeof(struct record))
        return NULL;
    unsigned class = class_of(bytes + sizeof(struct record), &size);
    pthread_mutex_lock(&keep->mutex);
    struct record *record = take_free(keep, class);
    bool fresh = record == NULL; /* zeros, as the file is */
    if (fresh)
        record = append(keep, size);
    if (record != NULL)
        atomic_store_explicit(&record->word, make_word(size, kind, FILLED), memory_order_release);
    pthread_mutex_unlock(&keep->mutex);
    if (record == NULL)
        return NULL;
    if (!fresh)
        clear_range((char *)(record + 1), size - sizeof *record);
    return record + 1;
}

void unshard_keep_commit(void *kept)
{
    struct record *record = record_of(kept);
    uint64_t word = atomic_load_explicit(&record->word, memory_order_relaxed);
    atomic_store_explicit(&record->word, (word & ~UINT64_C(0xff)) | COMMITTED,
                          memory_order_release);
}

void unshard_keep_remove(struct unshard_keep *keep, void *kept)
{
    uint64_t rounded;
    if (kept == NULL)
        return;
    struct record *record = record_of(kept);
    unsigned class = class_of(size_of(record), &rounded);
    atomic_store_explicit(&record->word, make_word(rounded, 0, FREE), memory_order_release);
    give_memory_back(record);
    pthread_mutex_lock(&keep->mutex);
    memcpy(kept, &keep->free[class], sizeof keep->free[class]);
    keep->free[class] = offset_of(keep, record);
    pthread_mutex_unlock(&keep->mutex);
}

size_t unshard_keep_size(const void *kept)
{
    return size_of(record_of(kept)) - sizeof(struct record);
}

int unshard_keep_each(struct unshard_keep *keep, enum unshard_keep_kind kind,
                      unshard_keep_found found, void *context)
{
    uint64_t end = atomic_load(&keep->head->end);
    int result = 0;
    for (uint64_t offset = keep->first; result == 0 && offset < end;) {
        struct record *record = record_at(keep, offset);
        if (!is_record(keep, offset, end))
            break;
        uint64_t word = atomic_load_explicit(&record->word, memory_order_acquire);
        if ((word & 0xff) == COMMITTED && (word >> 8 & 0xff) == kind)
            result = found(context, record + 1, (word >> 16) - sizeof *record);
        offset += word >> 16;
    }
    return result;
}
