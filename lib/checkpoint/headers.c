/* SPDX-License-Identifier: MIT */
#include "checkpoint/headers.h"

#include "base/checked.h"
#include "base/error.h"
#include "base/parallel.h"
#include "base/read_fully.h"
#include "checkpoint/path_policy.h"
#include "formats/gather.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct header_list {
    const struct unshard_checkpoint *checkpoint;
    struct header *headers;
};

/* A file that is read, and the record of that. */
struct recorded_file {
    int fd;
    struct header_record *record;
};

static int read_at(void *context, uint64_t offset, void *buffer, size_t length)
{
    const struct recorded_file *file = context;
    ssize_t got = read_fully(file->fd, offset, buffer, length);
    if (got < 0)
        return (int)got;
    if ((size_t)got < length)
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

static void read_header(const struct unshard_checkpoint *checkpoint, struct header *header)
{
    const struct source_file *file = &checkpoint->files[header->file];
    if (source_file_is_too_large(file)) {
        header->error = file->error;
        header->result = -file->error.errno_value;
        return;
    }
    int fd = checkpoint_open_file(checkpoint, header->file, 0);
    if (fd < 0) {
        header->result = error_set(&header->error, fd == -ENOENT ? "missing" : "unreadable", -fd,
                                   "%s: cannot open: %s", file->path, path_policy_reason(fd));
        return;
    }
    struct recorded_file recorded = {fd, &header->record};
    struct byte_reader reader = {.context = &recorded,
                                 .size = header->size != 0 ? header->size : file->size,
                                 .read = read_at,
                                 .advise = advise_at};
    if (header->dcp != NULL)
        header->result = dcp_file_read(&reader, file->path, header->dcp, header->dcp_file,
                                       &header->arena, &header->set, &header->error);
    else
        header->result =
            header->format->read(&reader, file->path, &header->arena, &header->set, &header->error);
    close(fd);
    header->needed = file->size;
    bool sane = set_tensor_files(header);
    header->truncated = header->result != 0 && header->set.tensor_count > 0 && sane &&
                        strcmp(header->error.code, "truncated") == 0;
}

static void read_number(void *context, uint32_t number)
{
    const struct header_list *list = context;
    read_header(list->checkpoint, &list->headers[number]);
}

void headers_read(const struct unshard_checkpoint *checkpoint, struct header *headers,
                  uint32_t count)
{
    struct header_list list = {.checkpoint = checkpoint, .headers = headers};
    parallel_run(count, PARALLEL_IO_THREADS, read_number, &list);
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

XXH128_hash_t headers_layout(const struct tensor_set *set)
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
    layout = XXH3_128bits_digest(state);
    XXH3_freeState(state);
    return layout;
}

bool headers_same_layout(const struct unshard_checkpoint *checkpoint, uint32_t number)
{
    const struct source_file *file = &checkpoint->files[number];
    struct stat status;
    struct header header = {.file = number, .format = file->format};
    if (file->format == NULL)
        return true;
    if (file->format->read == NULL)
        return false;
    int fd = path_policy_resolve(checkpoint, file->path, &status);
    if (fd < 0)
        return false;
    close(fd);
    header.size = (uint64_t)status.st_size;
    if (header.size > CHECKPOINT_MAX_FILE_BYTES)
        return false;
    read_header(checkpoint, &header);
    bool same = header.result == 0 && XXH128_isEqual(headers_layout(&header.set), file->layout);
    arena_free(&header.arena);
    header_record_free(&header.record);
    return same;
}

void headers_free(struct header *headers, uint32_t count)
{
    for (uint32_t i = 0; headers != NULL && i < count; i++) {
        arena_free(&headers[i].arena);
        header_record_free(&headers[i].record);
    }
    free(headers);
}
