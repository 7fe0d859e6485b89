/* SPDX-License-Identifier: MIT */
#include "tree/headers.h"

#include "base/checked.h"
#include "base/error.h"
#include "base/parallel.h"
#include "base/read_fully.h"
#include "formats/gather.h"
#include "tree/path_policy.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Headers tell their length first, which need not cost a request of its own: who asks for the start
 * of a file has so much of it read, or as much as the headers of others were seen to need. */
#define FIRST_READ ((size_t)16 << 10)
#define MOST_FIRST_READ ((size_t)256 << 10)

struct header_list {
    const struct unshard_checkpoint *checkpoint;
    struct header **headers; /* those at hand */
    atomic_size_t first_read;
};

/* A file that is read, and the record of that. */
struct recorded_file {
    int fd;
    uint64_t size;
    struct header_record *record;
    atomic_size_t *first_read; /* of the list */
    char *start; /* its first bytes, once they have been read; NULL: not, or no memory for it */
    size_t start_length;
};

static void read_start(struct recorded_file *file)
{
    size_t wanted = atomic_load(file->first_read);
    size_t length = file->size < wanted ? (size_t)file->size : wanted;
    file->start = malloc(length + 1);
    ssize_t got = file->start == NULL ? 0 : read_fully(file->fd, 0, file->start, length);
    file->start_length = got > 0 ? (size_t)got : 0;
}

/* The header goes on behind what was read first. */
static void note_length(const struct recorded_file *file, uint64_t end)
{
    size_t before = atomic_load(file->first_read);
    while (end > before && end <= MOST_FIRST_READ)
        if (atomic_compare_exchange_weak(file->first_read, &before, (size_t)end))
            break;
}

static int read_at(void *context, uint64_t offset, void *buffer, size_t length)
{
    struct recorded_file *file = context;
    if (offset == 0 && file->start == NULL)
        read_start(file);
    uint64_t held = offset < file->start_length ? file->start_length - offset : 0;
    size_t have = held < length ? (size_t)held : length;
    if (have > 0)
        memcpy(buffer, file->start + offset, have);
    if (have > 0 && have < length)
        note_length(file, offset + length);
    ssize_t got = have == length
                      ? 0
                      : read_fully(file->fd, offset + have, (char *)buffer + have, length - have);
    if (got < 0)
        return (int)got;
    if (have + (size_t)got < length)
        return -ENODATA;
    header_record_note(file->record, offset, buffer, length);
    return 0;
}

static void advise_at(void *context, uint64_t offset, uint64_t length)
{
    const struct recorded_file *file = context;
    posix_fadvise(file->fd, (off_t)offset, (off_t)length, POSIX_FADV_WILLNEED);
}

static bool note_end(struct header *header, uint64_t offset, uint64_t length)
{
    uint64_t end;
    if (!checked_add(offset, length, &end) || end > CHECKPOINT_MAX_FILE_BYTES)
        return false;
    if (end > header->needed)
        header->needed = end;
    return true;
}

/* Numbers the tensors' file and finds how long it must be. False: no file is that long. */
static bool set_tensor_files(struct header *header)
{
    bool sane = true;
    for (size_t i = 0; i < header->set.tensor_count; i++) {
        struct tensor *tensor = &header->set.tensors[i];
        tensor->file = header->file;
        if (tensor->gather == NULL)
            sane = sane && note_end(header, tensor->offset, tensor->length);
        for (uint32_t b = 0; tensor->gather != NULL && b < tensor->gather->box_count; b++) {
            struct gather_box *box = &tensor->gather->boxes[b];
            box->file = header->file;
            sane = sane && note_end(header, box->source, gather_box_span(box));
        }
    }
    return sane;
}

static int read_set(struct header *header, const struct byte_reader *reader, const char *path)
{
    const struct format *format = header->format;
    if (header->described != NULL)
        return format->described->read_member(reader, path, header->described, header->member,
                                              &header->arena, &header->set, &header->error);
    return format->read(reader, path, &header->arena, &header->set, &header->error);
}

static void read_header(struct header_list *list, struct header *header)
{
    const struct source_file *file = &list->checkpoint->files[header->file];
    if (source_file_is_too_large(file)) {
        header->error = *file->error;
        header->result = -file->error->errno_value;
        return;
    }
    if (header->described == NULL && header->format->described != NULL) {
        /* What describes its set cannot be used. */
        header->result = error_set(&header->error, "unreadable", EINVAL,
                                   "%s: nothing tells what is in it", file->path);
        return;
    }
    int fd = checkpoint_open_file(list->checkpoint, header->file, 0);
    if (fd < 0) {
        header->result = error_set(&header->error, fd == -ENOENT ? "missing" : "unreadable", -fd,
                                   "%s: cannot open: %s", file->path, path_policy_reason(fd));
        return;
    }
    struct recorded_file recorded = {.fd = fd,
                                     .size = header->size != 0 ? header->size : file->size,
                                     .record = &header->record,
                                     .first_read = &list->first_read};
    struct byte_reader reader = {
        .context = &recorded, .size = recorded.size, .read = read_at, .advise = advise_at};
    header->result = read_set(header, &reader, file->path);
    close(fd);
    free(recorded.start);
    header->needed = file->size;
    bool sane = set_tensor_files(header);
    header->truncated = header->result != 0 && header->set.tensor_count > 0 && sane &&
                        strcmp(header->error.code, "truncated") == 0;
}

/* ---- all of them -------------------------------------------------------------------------------
 */

static void header_clear(struct header *header)
{
    arena_free(&header->arena);
    header_record_free(&header->record);
    header->set = (struct tensor_set){0};
}

int headers_no_memory_left(struct unshard_error *error, const char *what, int errno_value)
{
    return error_set(error, "header-memory", errno_value,
                     "%s: takes more memory than is left of %zu MiB for all headers together", what,
                     HEADERS_MEMORY >> 20);
}

/* The budget is used up. A file that is shown as it is can do without. */
static void refuse(const struct unshard_checkpoint *checkpoint, struct header *header)
{
    static const char why[] = "its header was not looked at, for those of other files take all the "
                              "memory that there is for headers";
    header_clear(header);
    header->skipped = header->alone;
    header->result = 0;
    header->truncated = false;
    header->needed = checkpoint->files[header->file].size;
    if (header->skipped)
        header->set.note = why;
    else
        header->result =
            headers_no_memory_left(&header->error, checkpoint->files[header->file].path,
                                   header->format->shown_as != NULL ? ENOTSUP : EFBIG);
}

static void read_number(void *context, uint32_t number)
{
    struct header_list *list = context;
    struct header *header = list->headers[number];
    if (header->twin == NULL)
        read_header(list, header);
    if (header->arena.refused)
        header_clear(header); /* at once: others may do with what it took */
}

/* Again, for those that were refused memory that others needed only meanwhile. */
static void read_refused(struct header_list *list, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        struct header *header = list->headers[i];
        if (!header->arena.refused)
            continue;
        header->arena.refused = false;
        read_header(list, header);
        if (header->arena.refused)
            refuse(list->checkpoint, header);
    }
}

/* Those whose `alone` is this. */
static void read_kind(struct header_list *list, struct header *headers, uint32_t count, bool alone)
{
    uint32_t chosen = 0;
    for (uint32_t i = 0; i < count; i++)
        if (headers[i].alone == alone)
            list->headers[chosen++] = &headers[i];
    parallel_run(chosen, read_number, list);
    read_refused(list, chosen);
}

/* ---- several names of one file -----------------------------------------------------------------
 */

static int compare_numbers(uint64_t a, uint64_t b)
{
    return (a > b) - (a < b);
}

static int compare_content(const void *left, const void *right, void *context)
{
    const struct unshard_checkpoint *checkpoint = context;
    const struct header *a = *(struct header *const *)left, *b = *(struct header *const *)right;
    const struct source_file *one = &checkpoint->files[a->file], *two = &checkpoint->files[b->file];
    int order = compare_numbers(one->device, two->device);
    if (order == 0)
        order = compare_numbers(one->inode, two->inode);
    if (order == 0)
        order = compare_numbers((uintptr_t)a->format, (uintptr_t)b->format);
    if (order == 0)
        order = compare_numbers((uintptr_t)a->described, (uintptr_t)b->described);
    return order;
}

/* A stable order, so that the twin is the first of them. */
static int compare_for_twins(const void *left, const void *right, void *context)
{
    const struct header *a = *(struct header *const *)left, *b = *(struct header *const *)right;
    int order = compare_content(left, right, context);
    if (order == 0)
        order = (int)a->alone - (int)b->alone;
    return order != 0 ? order : compare_numbers((uintptr_t)a, (uintptr_t)b);
}

/* list->headers holds all of them. */
static void find_twins(struct header_list *list, uint32_t count)
{
    /* The context is only read. */
    void *context = (void *)list->checkpoint;
    qsort_r(list->headers, count, sizeof *list->headers, compare_for_twins, context);
    for (uint32_t i = 1; i < count; i++) {
        struct header *header = list->headers[i], *before = list->headers[i - 1];
        bool same = compare_content(&list->headers[i], &list->headers[i - 1], context) == 0;
        if (same && header->described == NULL)
            header->twin = before->twin != NULL ? before->twin : before;
    }
}

static struct gather *copy_gather(struct arena *arena, const struct gather *gather)
{
    struct gather *copy = arena_alloc(arena, sizeof *copy);
    struct gather_box *boxes = arena_alloc_array(arena, gather->box_count, sizeof *boxes);
    if (copy == NULL || boxes == NULL)
        return NULL;
    memcpy(boxes, gather->boxes, gather->box_count * sizeof *boxes);
    *copy = *gather;
    copy->boxes = boxes;
    return copy;
}

/* What others change of a set is copied; the rest lives as long as the twin. */
static bool copy_set(struct header *header)
{
    struct tensor_set *set = &header->set;
    struct tensor *tensors = arena_alloc_array(&header->arena, set->tensor_count, sizeof *tensors);
    struct metadata_entry *metadata =
        arena_alloc_array(&header->arena, set->metadata_count, sizeof *metadata);
    if (tensors == NULL || metadata == NULL)
        return false;
    if (set->tensor_count > 0)
        memcpy(tensors, set->tensors, set->tensor_count * sizeof *tensors);
    if (set->metadata_count > 0)
        memcpy(metadata, set->metadata, set->metadata_count * sizeof *metadata);
    set->tensors = tensors;
    set->metadata = metadata;
    for (size_t i = 0; i < set->tensor_count; i++)
        if (tensors[i].gather != NULL &&
            (tensors[i].gather = copy_gather(&header->arena, tensors[i].gather)) == NULL)
            return false;
    set_tensor_files(header);
    return true;
}

/* The same error, of this file. */
static void copy_error(const struct unshard_checkpoint *checkpoint, struct header *header)
{
    const char *path = checkpoint->files[header->file].path;
    const char *twin = checkpoint->files[header->twin->file].path;
    const struct unshard_error *error = &header->twin->error;
    size_t length = strlen(twin);
    header->error = *error;
    if (strncmp(error->message, twin, length) == 0)
        snprintf(header->error.message, sizeof header->error.message, "%s%s", path,
                 error->message + length);
}

static void copy_twin(const struct unshard_checkpoint *checkpoint, struct header *header)
{
    const struct header *twin = header->twin;
    header->set = twin->set;
    header->needed = twin->needed;
    header->result = twin->result;
    header->truncated = twin->truncated;
    header->skipped = twin->skipped;
    if (twin->result != 0)
        copy_error(checkpoint, header);
    if (!copy_set(header))
        refuse(checkpoint, header);
}

void headers_read(const struct unshard_checkpoint *checkpoint, struct header *headers,
                  uint32_t count, struct memory_budget *budget)
{
    struct header_list list = {.checkpoint = checkpoint,
                               .headers = calloc((size_t)count + 1, sizeof *list.headers),
                               .first_read = FIRST_READ};
    for (uint32_t i = 0; i < count; i++) {
        headers[i].arena.budget = budget;
        if (list.headers == NULL)
            headers[i].result = error_no_memory(&headers[i].error);
        else
            list.headers[i] = &headers[i];
    }
    if (list.headers == NULL)
        return;
    find_twins(&list, count);
    read_kind(&list, headers, count, false);
    read_kind(&list, headers, count, true);
    for (uint32_t i = 0; i < count; i++)
        if (headers[i].twin != NULL)
            copy_twin(checkpoint, &headers[i]);
    free(list.headers);
}

static void hash_gather(XXH3_state_t *state, const struct gather *gather)
{
    for (uint32_t i = 0; i < gather->box_count; i++) {
        const struct gather_box *box = &gather->boxes[i];
        uint64_t numbers[] = {box->rank, box->source, box->target, box->run};
        XXH3_128bits_update(state, numbers, sizeof numbers);
        XXH3_128bits_update(state, box->dimensions, box->rank * sizeof *box->dimensions);
    }
}

static XXH128_hash_t hash_entry(const struct metadata_entry *entry)
{
    XXH64_hash_t seed = XXH3_64bits(entry->value, entry->value_length);
    return XXH3_128bits_withSeed(entry->key, entry->key_length, seed);
}

/* Whatever their order: the reference library writes them in another one each time. Whether there
 * is any tells a missing one from an empty one. */
static void hash_metadata(XXH3_state_t *state, const struct tensor_set *set)
{
    uint64_t numbers[] = {set->metadata != NULL, set->metadata_count, 0, 0};
    for (size_t i = 0; set->metadata != NULL && i < set->metadata_count; i++) {
        XXH128_hash_t entry = hash_entry(&set->metadata[i]);
        numbers[2] += entry.low64;
        numbers[3] += entry.high64;
    }
    XXH3_128bits_update(state, numbers, sizeof numbers);
}

XXH128_hash_t headers_layout(const struct format *format, const struct tensor_set *set)
{
    XXH3_state_t *state = XXH3_createState();
    XXH128_hash_t layout = {0, 0};
    if (state == NULL || XXH3_128bits_reset(state) != XXH_OK) {
        XXH3_freeState(state);
        return layout;
    }
    for (size_t i = 0; i < set->tensor_count; i++) {
        const struct tensor *tensor = &set->tensors[i];
        uint64_t numbers[] = {tensor->name_length, tensor->dtype, tensor->rank, tensor->offset,
                              tensor->length};
        XXH3_128bits_update(state, numbers, sizeof numbers);
        XXH3_128bits_update(state, tensor->name, tensor->name_length);
        XXH3_128bits_update(state, tensor->shape, tensor->rank * sizeof *tensor->shape);
        if (tensor->gather != NULL)
            hash_gather(state, tensor->gather);
    }
    hash_metadata(state, set);
    if (set->detail != NULL && format->hash_detail != NULL)
        format->hash_detail(set, state);
    layout = XXH3_128bits_digest(state);
    XXH3_freeState(state);
    return layout;
}

bool headers_same_layout(const struct unshard_checkpoint *checkpoint, uint32_t number)
{
    const struct source_file *file = &checkpoint->files[number];
    struct stat status;
    struct memory_budget budget = {.limit = HEADERS_MEMORY};
    struct header header = {.file = number, .format = file->format, .arena = {.budget = &budget}};
    struct header_list alone = {.checkpoint = checkpoint, .first_read = FIRST_READ};
    if (file->format == NULL)
        return true;
    if (file->format->described != NULL)
        return false;
    int fd = path_policy_resolve(checkpoint, file->path, &status);
    if (fd < 0)
        return false;
    close(fd);
    header.size = (uint64_t)status.st_size;
    if (header.size > CHECKPOINT_MAX_FILE_BYTES)
        return false;
    read_header(&alone, &header);
    bool same = header.result == 0 &&
                XXH128_isEqual(headers_layout(header.format, &header.set), file->layout);
    arena_free(&header.arena);
    header_record_free(&header.record);
    return same;
}

void headers_free(struct header *headers, uint32_t count)
{
    for (uint32_t i = 0; headers != NULL && i < count; i++)
        header_clear(&headers[i]);
    free(headers);
}
