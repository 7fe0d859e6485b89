/* SPDX-License-Identifier: MIT */
#include "tree/discovery.h"

#include "base/error.h"
#include "base/parallel.h"
#include "base/read_fully.h"
#include "formats/gather.h"
#include "tree/added_views.h"
#include "tree/hub_markers.h"
#include "tree/identity.h"
#include "tree/inherited.h"
#include "tree/outcome.h"
#include "tree/parsed_list.h"
#include "tree/path_policy.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Room for one more source file. Enough is reserved but for gathered ones, whose number is known
 * last. */
static bool reserve_file(struct discovery *discovery)
{
    struct unshard_checkpoint *checkpoint = discovery->checkpoint;
    if (checkpoint->file_count < discovery->file_capacity)
        return true;
    size_t capacity = 2 * discovery->file_capacity + 1;
    struct source_file *grown = arena_alloc_array(&checkpoint->arena, capacity, sizeof *grown);
    if (grown == NULL)
        return false;
    memcpy(grown, checkpoint->files, checkpoint->file_count * sizeof *grown);
    checkpoint->files = grown;
    discovery->file_capacity = capacity;
    return true;
}

void discovery_fail_file(struct discovery *discovery, struct source_file *file,
                         const struct unshard_error *error)
{
    static const struct unshard_error no_memory = {.code = "no-memory",
                                                   .errno_value = ENOMEM,
                                                   .offset = UNSHARD_NO_OFFSET,
                                                   .message = "out of memory"};
    struct unshard_error *kept = arena_alloc(&discovery->checkpoint->arena, sizeof *kept);
    if (kept != NULL)
        *kept = *error;
    file->failed = true;
    file->error = kept != NULL ? kept : &no_memory;
}

static void refuse_too_large(struct discovery *discovery, struct source_file *file)
{
    struct unshard_error error;
    if (!source_file_is_too_large(file))
        return;
    error_set(&error, "too-large", EFBIG,
              "%s: its size is %llu bytes; files of more than %llu are not shown", file->path,
              (unsigned long long)file->size, (unsigned long long)CHECKPOINT_MAX_FILE_BYTES);
    discovery_fail_file(discovery, file, &error);
}

uint32_t discovery_add_file(struct discovery *discovery, uint32_t entry_number)
{
    struct scan_entry *entry = &discovery->scan.entries[entry_number];
    struct unshard_checkpoint *checkpoint = discovery->checkpoint;
    if (entry->file != SCAN_NONE)
        return entry->file;
    if (!reserve_file(discovery))
        return SCAN_NONE;
    entry->file = checkpoint->file_count++;
    checkpoint->files[entry->file] = (struct source_file){
        .path = entry->path,
        .size = entry->size,
        .mtime_ns = entry->mtime_ns,
        .ctime_ns = entry->ctime_ns,
        .device = entry->device,
        .inode = entry->inode,
        .mode = entry->mode,
        .uid = entry->uid,
        .gid = entry->gid,
        .component = NO_COMPONENT,
    };
    refuse_too_large(discovery, &checkpoint->files[entry->file]);
    if (entry->damage != NULL)
        discovery_fail_file(discovery, &checkpoint->files[entry->file], entry->damage);
    return entry->file;
}

bool discovery_add_gathered(struct discovery *discovery, const struct gathered *gathered,
                            const char *path, uint32_t component)
{
    struct unshard_checkpoint *checkpoint = discovery->checkpoint;
    const struct gathered *copy = gathered_copy(gathered, &checkpoint->arena);
    if (copy == NULL || !reserve_file(discovery))
        return false;
    checkpoint->files[checkpoint->file_count++] = (struct source_file){
        .path = path, .gathered = copy, .size = copy->size, .component = component};
    return true;
}

uint32_t discovery_add_view(struct discovery *discovery, const char *path, struct extent_map *map,
                            uint32_t component)
{
    struct unshard_checkpoint *checkpoint = discovery->checkpoint;
    uint32_t number = checkpoint->view_count++;
    checkpoint->views[number] = (struct view){.path = path,
                                              .size = map->size,
                                              .map = *map,
                                              .component = component,
                                              .file = EXTENT_LITERAL};
    *map = (struct extent_map){0};
    return number;
}

static uint32_t add_unreadable(struct discovery *discovery, uint32_t entry_number, uint64_t size,
                               uint32_t component)
{
    struct extent_map nothing = {0};
    struct scan_entry *entry = &discovery->scan.entries[entry_number];
    entry->view = discovery_add_view(discovery, entry->path, &nothing, component);
    discovery->checkpoint->views[entry->view].size = size;
    discovery->checkpoint->views[entry->view].unreadable = true;
    return entry->view;
}

uint32_t discovery_add_passthrough(struct discovery *discovery, uint32_t entry_number,
                                   uint64_t size, uint32_t component)
{
    struct extent_map_builder builder = {0};
    struct extent_map map;
    struct scan_entry *entry = &discovery->scan.entries[entry_number];
    uint32_t file = discovery_add_file(discovery, entry_number);
    if (file == SCAN_NONE)
        return UNSHARD_NO_VIEW;
    if (size > CHECKPOINT_MAX_FILE_BYTES)
        return add_unreadable(discovery, entry_number, size, component);
    if (extent_map_append_source(&builder, file, 0, size) != 0) {
        extent_map_builder_free(&builder);
        return UNSHARD_NO_VIEW;
    }
    if (extent_map_finish(&builder, &map) != 0)
        return UNSHARD_NO_VIEW;
    entry->view = discovery_add_view(discovery, entry->path, &map, component);
    discovery->checkpoint->views[entry->view].prefetch = component != NO_COMPONENT;
    discovery->checkpoint->views[entry->view].file = file;
    return entry->view;
}

/* A large file in pieces, several at once, so that its latency counts once. */
#define PIECE_BYTES ((size_t)256 << 10)
#define LEAST_IN_PIECES (UINT64_C(1) << 20)

struct pieces {
    int fd;
    char *bytes;
    size_t length;
    atomic_bool incomplete;
};

static void read_piece(void *context, uint32_t number)
{
    struct pieces *pieces = context;
    size_t start = number * PIECE_BYTES, length = pieces->length - start;
    length = length < PIECE_BYTES ? length : PIECE_BYTES;
    if (read_fully(pieces->fd, start, pieces->bytes + start, length) != (ssize_t)length)
        atomic_store(&pieces->incomplete, true);
}

/* Nothing is read when not all of it can be: the usual way finds out why. */
static void read_pieces(int fd, size_t length, struct text *text)
{
    struct pieces pieces = {.fd = fd, .bytes = malloc(length + 1), .length = length};
    if (pieces.bytes == NULL)
        return;
    atomic_init(&pieces.incomplete, false);
    parallel_run((uint32_t)((length - 1) / PIECE_BYTES + 1), read_piece, &pieces);
    if (atomic_load(&pieces.incomplete) || lseek(fd, (off_t)length, SEEK_SET) < 0) {
        free(pieces.bytes);
        return;
    }
    pieces.bytes[length] = '\0';
    *text = (struct text){.data = pieces.bytes, .length = length, .capacity = length + 1};
}

/* Reads to the end, whatever size was told before. */
static int read_to_end(int fd, uint64_t limit, struct text *text)
{
    char buffer[65536];
    for (;;) {
        ssize_t got = read(fd, buffer, sizeof buffer);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return -errno;
        if (got == 0)
            return 0;
        text_append(text, buffer, (size_t)got);
        if (text->length > limit)
            return -EFBIG;
    }
}

int discovery_read_fd(int fd, uint64_t limit, char **out, size_t *length)
{
    struct stat status;
    struct text text = {0};
    if (fstat(fd, &status) != 0)
        return -errno;
    if (!S_ISREG(status.st_mode))
        return -EINVAL;
    uint64_t size = (uint64_t)status.st_size;
    if (size >= LEAST_IN_PIECES && size <= limit)
        read_pieces(fd, (size_t)size, &text);
    int result = read_to_end(fd, limit, &text);
    *length = text.length;
    *out = result == 0 ? text_take(&text) : NULL;
    text_free(&text);
    return result == 0 && *out == NULL ? -ENOMEM : result;
}

int discovery_read_file(const struct discovery *discovery, uint32_t entry, uint64_t limit,
                        char **out, size_t *length)
{
    struct stat status;
    int path_fd =
        path_policy_resolve(discovery->checkpoint, discovery->scan.entries[entry].path, &status);
    if (path_fd < 0)
        return path_fd;
    int fd = S_ISREG(status.st_mode) ? path_policy_reopen(path_fd, 0) : -EINVAL;
    close(path_fd);
    if (fd < 0)
        return fd;
    int result = discovery_read_fd(fd, limit, out, length);
    close(fd);
    return result;
}

int discovery_take_file(struct discovery *discovery, uint32_t entry, uint64_t limit, char **out,
                        size_t *length)
{
    if (early_reads_take(&discovery->early, entry, limit, out, length))
        return 0;
    return discovery_read_file(discovery, entry, limit, out, length);
}

const char *discovery_why_unread(int result, uint64_t limit, char out[64])
{
    if (result != -EFBIG)
        return strerrordesc_np(-result);
    snprintf(out, 64, "it has more than %llu bytes", (unsigned long long)limit);
    return out;
}

/* Every regular file may become a source file. */
static int reserve_files(struct discovery *discovery)
{
    struct unshard_checkpoint *checkpoint = discovery->checkpoint;
    size_t files = 0;
    for (uint32_t i = 0; i < discovery->scan.count; i++)
        files += discovery->scan.entries[i].kind == SCAN_FILE;
    for (uint32_t i = 0; i < discovery->candidate_count; i++)
        files += discovery->candidates[i]->absent_count;
    discovery->file_capacity = files + 1;
    checkpoint->files = arena_alloc_array(&checkpoint->arena, files + 1, sizeof *checkpoint->files);
    return checkpoint->files == NULL ? -ENOMEM : 0;
}

/* Every regular file may become a view; a component adds a merged file and an index, one that is
 * split off a file. */
static int reserve_views(struct discovery *discovery)
{
    struct unshard_checkpoint *checkpoint = discovery->checkpoint;
    size_t views = 2U * (size_t)discovery->candidate_count + discovery->split_count;
    for (uint32_t i = 0; i < discovery->scan.count; i++)
        views += discovery->scan.entries[i].kind == SCAN_FILE;
    checkpoint->views = arena_alloc_array(&checkpoint->arena, views + 1, sizeof *checkpoint->views);
    return checkpoint->views == NULL ? -ENOMEM : 0;
}

/* What components ask for and cannot have becomes source files that have failed. */
static void add_absent_files(struct discovery *discovery)
{
    struct unshard_checkpoint *checkpoint = discovery->checkpoint;
    for (uint32_t i = 0; i < discovery->candidate_count; i++) {
        struct candidate *candidate = discovery->candidates[i];
        for (uint32_t k = 0; k < candidate->absent_count; k++) {
            struct absent_shard *absent = &candidate->absent[k];
            absent->file = checkpoint->file_count++;
            checkpoint->files[absent->file] = (struct source_file){.path = absent->path,
                                                                   .mode = S_IFREG,
                                                                   .component = NO_COMPONENT,
                                                                   .failed = true,
                                                                   .error = absent->error};
        }
    }
}

/* What was read of a file holds for all of its names. */
static void share_pieces(struct discovery *discovery)
{
    struct source_file *files = discovery->checkpoint->files;
    for (uint32_t i = 0; i < discovery->header_count; i++) {
        const struct header *header = &discovery->headers[i];
        if (header->twin == NULL)
            continue;
        files[header->file].header_pieces = files[header->twin->file].header_pieces;
        files[header->file].header_piece_count = files[header->twin->file].header_piece_count;
    }
}

/* The directory as it is on disk: nothing is left out, added or made out of others. PyTorch files
 * are weights there as others are. */
static void settle_options(struct unshard_view_options *options)
{
    if (options->layout != UNSHARD_LAYOUT_SHARDS)
        return;
    options->split = "off";
    if (options->pickle == UNSHARD_PICKLE_ASIS)
        options->pickle = UNSHARD_PICKLE_AUTO;
}

/* Members of candidates become source files, and their headers are read. */
static int read_headers(struct discovery *discovery)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < discovery->candidate_count; i++)
        count += discovery->candidates[i]->member_count;
    discovery->headers = calloc((size_t)count + 1, sizeof *discovery->headers);
    if (discovery->headers == NULL)
        return -ENOMEM;
    for (uint32_t i = 0; i < discovery->candidate_count; i++) {
        struct candidate *candidate = discovery->candidates[i];
        candidate->headers = discovery->headers + discovery->header_count;
        for (uint32_t k = 0; k < candidate->member_count; k++) {
            uint32_t file = discovery_add_file(discovery, candidate->members[k]);
            struct header *header = &discovery->headers[discovery->header_count++];
            header->file = file;
            header->format = candidate->format;
            header->described = candidate->described;
            header->member = k;
            header->alone = candidate->passthrough && candidate->index_entry == SCAN_NONE;
        }
    }
    headers_read(discovery->checkpoint, discovery->headers, discovery->header_count,
                 &discovery->budget);
    for (uint32_t i = 0; i < discovery->header_count; i++) {
        struct header *header = &discovery->headers[i];
        struct source_file *file = &discovery->checkpoint->files[header->file];
        if ((header->result != 0 && !header->truncated) || header->skipped)
            continue;
        file->format = header->format;
        file->layout = headers_layout(header->format, &header->set);
        if (header->twin == NULL)
            file->header_pieces = header_record_take(&header->record, &discovery->checkpoint->arena,
                                                     &file->header_piece_count);
    }
    share_pieces(discovery);
    return 0;
}

/* directory: to be laid out; NULL: all of them. */
static int run(struct discovery *discovery, const char *directory, struct unshard_error *error)
{
    struct unshard_checkpoint *checkpoint = discovery->checkpoint;
    int result =
        directory == NULL
            ? scan_tree(checkpoint, &discovery->notes, &discovery->scan, error)
            : scan_focus(checkpoint, directory, &discovery->notes, &discovery->scan, error);
    if (result == 0) {
        inherited_apply(discovery);
        early_reads_make(discovery);
        result = grouping_find(discovery, error);
        early_reads_free(&discovery->early);
    }
    if (result == 0 && (reserve_files(discovery) != 0 || read_headers(discovery) != 0))
        result = error_no_memory(error);
    if (result == 0)
        result = outcomes_settle(discovery, error);
    if (result == 0)
        result = load_order_apply(discovery, error);
    if (result == 0 && checkpoint->options.layout != UNSHARD_LAYOUT_SHARDS)
        added_views_settle(discovery);
    if (result == 0)
        result = splitting_find(discovery, error);
    if (result == 0 && reserve_views(discovery) != 0)
        result = error_no_memory(error);
    if (result == 0) {
        add_absent_files(discovery);
        result = components_build(discovery, error);
    }
    if (result == 0)
        result = splitting_build(discovery, error);
    if (result == 0)
        result = expectations_gather(discovery, error);
    if (result == 0 && (hub_markers_hide(discovery) != 0 || inherited_make(discovery) != 0))
        result = error_no_memory(error);
    if (result == 0)
        result = tree_build(discovery, error);
    if (result == 0 && trace_make(discovery) != 0)
        result = error_no_memory(error);
    if (result == 0 && notes_take(&discovery->notes, &checkpoint->arena, &checkpoint->notes,
                                  &checkpoint->note_count) != 0)
        result = error_no_memory(error);
    return result;
}

static void discovery_free(struct discovery *discovery)
{
    headers_free(discovery->headers, discovery->header_count);
    for (uint32_t i = 0; i < discovery->candidate_count; i++)
        candidate_free(discovery->candidates[i]);
    free(discovery->candidates);
    free(discovery->splits);
    free(discovery->added);
    notes_free(&discovery->notes);
    scan_free(&discovery->scan);
}

/* directory: of the source, whose path may lead elsewhere by now; negative: it is found. */
static int open_source(struct unshard_checkpoint *checkpoint, const char *source, int directory,
                       struct unshard_error *error)
{
    checkpoint->source = directory < 0 ? realpath(source, NULL) : strdup(source);
    if (checkpoint->source == NULL)
        return error_set(error, "no-source", errno, "%s: %s", source, strerrordesc_np(errno));
    checkpoint->source_fd = directory < 0
                                ? open(checkpoint->source, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
                                : openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (checkpoint->source_fd < 0)
        return error_set(error, "no-source", errno, "%s: %s", source, strerrordesc_np(errno));
    if (path_policy_find_hub(checkpoint) != 0)
        return error_no_memory(error);
    return 0;
}

/* What headers took is much more than what stays, for as long as a mount is; but going through all
 * memory of the process takes longer than laying out a directory of few files. */
#define WORTH_TRIMMING ((size_t)16 << 20)

/* Has the checkpoint filled in, or closed. */
static int discover(struct unshard_checkpoint *checkpoint, const struct layout_context *context,
                    const char *directory, struct unshard_error *error)
{
    struct discovery discovery = {
        .checkpoint = checkpoint, .context = context, .budget = {.limit = HEADERS_MEMORY}};
    int result = run(&discovery, directory, error);
    if (result == 0 && identities_make(checkpoint) != 0)
        result = error_no_memory(error);
    bool much = directory == NULL || atomic_load(&discovery.budget.taken) >= WORTH_TRIMMING;
    discovery_free(&discovery);
    if (much)
        malloc_trim(0);
    checkpoint->options.split = NULL; /* the caller's, and done with */
    if (result != 0)
        unshard_checkpoint_close(checkpoint);
    return result;
}

/* With no source yet; NULL: no memory. */
static struct unshard_checkpoint *new_checkpoint(const struct unshard_view_options *options)
{
    struct unshard_checkpoint *checkpoint = calloc(1, sizeof *checkpoint);
    if (checkpoint == NULL)
        return NULL;
    checkpoint->source_fd = -1;
    if (options != NULL)
        checkpoint->options = *options;
    settle_options(&checkpoint->options);
    return checkpoint;
}

int unshard_checkpoint_open(const char *source, const struct unshard_view_options *options,
                            struct unshard_checkpoint **out, struct unshard_error *error)
{
    struct unshard_checkpoint *checkpoint = new_checkpoint(options);
    if (checkpoint == NULL)
        return error_no_memory(error);
    int result = open_source(checkpoint, source, -1, error);
    if (result != 0) {
        unshard_checkpoint_close(checkpoint);
        return result;
    }
    result = discover(checkpoint, NULL, NULL, error);
    if (result == 0)
        *out = checkpoint;
    return result;
}

int checkpoint_place_open(const char *source, int directory,
                          const struct unshard_view_options *options,
                          struct unshard_checkpoint **out, struct unshard_error *error)
{
    struct unshard_checkpoint *place = new_checkpoint(options);
    if (place == NULL)
        return error_no_memory(error);
    int result = open_source(place, source, directory, error);
    if (result != 0) {
        unshard_checkpoint_close(place);
        return result;
    }
    const char *split = place->options.split;
    if (split != NULL &&
        (place->options.split = arena_copy_string(&place->arena, split, strlen(split))) == NULL) {
        unshard_checkpoint_close(place);
        return error_no_memory(error);
    }
    *out = place;
    return 0;
}

int checkpoint_lay_out(const struct unshard_checkpoint *place, const struct layout_context *context,
                       const char *directory, struct unshard_checkpoint **out,
                       struct unshard_error *error)
{
    struct unshard_checkpoint *layout = calloc(1, sizeof *layout);
    if (layout == NULL)
        return error_no_memory(error);
    layout->source = place->source;
    layout->source_fd = place->source_fd;
    layout->cover = place->cover;
    layout->options = place->options;
    layout->options.split = context->split;
    layout->repository = place->repository;
    layout->borrowed = true;
    int result = discover(layout, context, directory, error);
    if (result == 0)
        *out = layout;
    return result;
}

/* The arrays of a copy are its own, and of what they point to what is not its origin's. */
static void free_views(struct unshard_checkpoint *checkpoint)
{
    const struct unshard_checkpoint *origin = checkpoint->origin;
    for (uint32_t i = 0; i < checkpoint->view_count; i++)
        if (origin == NULL || checkpoint->views[i].map.extents != origin->views[i].map.extents)
            extent_map_free(&checkpoint->views[i].map);
}

void unshard_checkpoint_close(struct unshard_checkpoint *checkpoint)
{
    if (checkpoint == NULL)
        return;
    free_views(checkpoint);
    if (checkpoint->source_fd >= 0 && !checkpoint->borrowed)
        close(checkpoint->source_fd);
    if (!checkpoint->borrowed)
        free(checkpoint->source);
    struct unshard_checkpoint *origin = checkpoint->origin;
    if (origin == NULL) /* else it has what that one holds */
        parsed_lists_free(&checkpoint->inherited);
    arena_free(&checkpoint->arena);
    free(checkpoint);
    unshard_layout_release(origin);
}
