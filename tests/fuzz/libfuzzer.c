/* The entry of libFuzzer: what it makes up is read as a script of tables, frames and datagrams.
 *
 * The first byte holds the engine's options; then follow records of a head of 4 bytes (kind, segment size / 8, length
 * in big-endian order) and as many bytes as the length says and are there.
 */
#include <stdlib.h>

#include "exercise.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct exercise *exercise = malloc(sizeof *exercise);
    if (size < 1 || exercise == NULL) {
        free(exercise);
        return 0;
    }
    exercise_init(exercise, data[0]);
    data++;
    size--;
    while (size >= 4) {
        uint8_t kind = data[0];
        size_t segment_size = data[1] * 8u, length = load_be16(data + 2);
        data += 4;
        size -= 4;
        if (length > size)
            length = size;
        exercise->sent = exercise->sent_fragmented = (enum sent)(kind >> 2 & 3) % 3;
        exercise->mtu = segment_size * 8;
        switch (kind & 3) {
        case 0:
            exercise_table(exercise, data, length);
            break;
        case 1:
            exercise_frame(exercise, data, length);
            break;
        case 2:
            exercise_datagram(exercise, 0x0a630002, segment_size, data, length);
            break;
        case 3:
            exercise_flush(exercise);
        }
        data += length;
        size -= length;
    }
    exercise_destroy(exercise);
    free(exercise);
    return 0;
}
