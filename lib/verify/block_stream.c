/* SPDX-License-Identifier: MIT
 *
 * Block n is read into slot n % slot_count. A reader takes the next number when the slot of it is
 * free, which is when the block of the round before has been taken; the taker waits for its slot
 * to be ready. Nothing is held while reading: a slot that is neither free nor ready belongs to its
 * reader. */
#include "verify/block_stream.h"

#include "base/error.h"
#include "base/read_fully.h"
#include "store/file_read.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MOST_READERS 32U

struct slot {
    unsigned char *data;
    ssize_t got; /* bytes, or a negative errno */
    bool ready;  /* under the lock */
};

struct block_stream {
    const char *path;
    int fd, direct_fd; /* direct_fd: -1 where the file system does not take O_DIRECT */
    uint64_t size, block_count;
    struct slot slots[MOST_READERS + 2];
    unsigned slot_count, reader_count;
    pthread_t readers[MOST_READERS];
    uint64_t next_number;   /* that the taker wants next; its own */
    pthread_mutex_t lock;   /* of everything below */
    pthread_cond_t changed; /* a slot became free or ready, or stop was set */
    uint64_t next_read, next_taken;
    bool stop;
};

/* ---- reading a block ---------------------------------------------------------------------------
 */

static size_t block_length(const struct block_stream *stream, uint64_t number)
{
    uint64_t left = stream->size - number * BLOCK_BYTES;
    return left < BLOCK_BYTES ? (size_t)left : BLOCK_BYTES;
}

static ssize_t read_block(const struct block_stream *stream, uint64_t number, unsigned char *data)
{
    uint64_t offset = number * BLOCK_BYTES;
    size_t length = block_length(stream, number);
    if (stream->direct_fd < 0)
        return read_fully(stream->fd, offset, data, length);
    if (file_read_if_cached(stream->fd, offset, data, length) == 1)
        return (ssize_t)length;
    if (file_read_direct(stream->direct_fd, offset, data, length) == (ssize_t)length)
        return (ssize_t)length;
    return read_fully(stream->fd, offset, data, length);
}

/* ---- readers -----------------------------------------------------------------------------------
 */

static bool may_wait(const struct block_stream *stream)
{
    return !stream->stop && stream->next_read < stream->block_count &&
           stream->next_read >= stream->next_taken + stream->slot_count;
}

static void *reader_main(void *argument)
{
    struct block_stream *stream = argument;
    pthread_mutex_lock(&stream->lock);
    for (;;) {
        while (may_wait(stream))
            pthread_cond_wait(&stream->changed, &stream->lock);
        if (stream->stop || stream->next_read >= stream->block_count)
            break;
        uint64_t number = stream->next_read++;
        struct slot *slot = &stream->slots[number % stream->slot_count];
        pthread_mutex_unlock(&stream->lock);
        slot->got = read_block(stream, number, slot->data);
        pthread_mutex_lock(&stream->lock);
        slot->ready = true;
        pthread_cond_broadcast(&stream->changed);
    }
    pthread_mutex_unlock(&stream->lock);
    return NULL;
}

static void start_readers(struct block_stream *stream, unsigned readers)
{
    while (stream->reader_count < readers &&
           pthread_create(&stream->readers[stream->reader_count], NULL, reader_main, stream) == 0)
        stream->reader_count++;
}

/* ---- the stream --------------------------------------------------------------------------------
 */

static bool allocate_slots(struct block_stream *stream, unsigned count)
{
    for (; stream->slot_count < count; stream->slot_count++) {
        struct slot *slot = &stream->slots[stream->slot_count];
        slot->data = aligned_alloc(DIRECT_ALIGNMENT, BLOCK_BYTES);
        if (slot->data == NULL)
            return false;
    }
    return true;
}

struct block_stream *block_stream_open(const struct unshard_checkpoint *checkpoint, uint32_t file,
                                       int fd, unsigned readers)
{
    struct block_stream *stream = calloc(1, sizeof *stream);
    if (stream == NULL)
        return NULL;
    const struct source_file *source = &checkpoint->files[file];
    stream->path = source->path;
    stream->fd = fd;
    stream->direct_fd = -1;
    stream->size = source->size;
    stream->block_count = (source->size + BLOCK_BYTES - 1) / BLOCK_BYTES;
    pthread_mutex_init(&stream->lock, NULL);
    pthread_cond_init(&stream->changed, NULL);
    if (stream->block_count < 2)
        readers = 0;
    readers = readers < MOST_READERS ? readers : MOST_READERS;
    if (!allocate_slots(stream, readers > 0 ? readers + 2 : 1)) {
        block_stream_close(stream);
        return NULL;
    }
    if (readers > 0) {
        stream->direct_fd = checkpoint_open_file(checkpoint, file, O_DIRECT);
        start_readers(stream, readers);
    }
    return stream;
}

/* Gives the slot taken last back, and waits for the next. Without readers it is read here. */
static struct slot *take_slot(struct block_stream *stream, uint64_t number)
{
    struct slot *slot = &stream->slots[number % stream->slot_count];
    if (stream->reader_count == 0) {
        slot->got = read_block(stream, number, slot->data);
        return slot;
    }
    pthread_mutex_lock(&stream->lock);
    if (number > 0) {
        stream->slots[(number - 1) % stream->slot_count].ready = false;
        stream->next_taken = number;
        pthread_cond_broadcast(&stream->changed);
    }
    while (!slot->ready)
        pthread_cond_wait(&stream->changed, &stream->lock);
    pthread_mutex_unlock(&stream->lock);
    return slot;
}

ssize_t block_stream_next(struct block_stream *stream, const unsigned char **data,
                          struct unshard_error *error)
{
    uint64_t number = stream->next_number;
    if (number == stream->block_count)
        return 0;
    uint64_t offset = number * BLOCK_BYTES;
    struct slot *slot = take_slot(stream, number);
    stream->next_number++;
    if (slot->got < 0)
        return error_set_at(error, "read-error", (int)-slot->got, offset, "%s: read at %llu: %s",
                            stream->path, (unsigned long long)offset,
                            strerrordesc_np((int)-slot->got));
    if ((size_t)slot->got < block_length(stream, number)) {
        unsigned long long end = offset + (uint64_t)slot->got;
        return error_set_at(error, "truncated", EIO, end,
                            "%s: truncated: it ends at %llu, its size was %llu", stream->path, end,
                            (unsigned long long)stream->size);
    }
    *data = slot->data;
    return slot->got;
}

void block_stream_close(struct block_stream *stream)
{
    if (stream == NULL)
        return;
    pthread_mutex_lock(&stream->lock);
    stream->stop = true;
    pthread_cond_broadcast(&stream->changed);
    pthread_mutex_unlock(&stream->lock);
    for (unsigned i = 0; i < stream->reader_count; i++)
        pthread_join(stream->readers[i], NULL);
    for (unsigned i = 0; i < stream->slot_count; i++)
        free(stream->slots[i].data);
    if (stream->direct_fd >= 0)
        close(stream->direct_fd);
    pthread_cond_destroy(&stream->changed);
    pthread_mutex_destroy(&stream->lock);
    free(stream);
}
