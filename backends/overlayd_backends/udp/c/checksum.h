/* The Internet checksum (RFC 1071).
 *
 * A `sum` is an unfolded ones' complement sum of 16-bit words in the machine's byte order.  The sum does not
 * depend on the byte order as long as the words are read and the result is written in the same one, so words are
 * taken and put by memcpy, and only numbers that were not read from a packet have to be turned (`sum_number`).
 */
#ifndef OVERLAYD_CHECKSUM_H
#define OVERLAYD_CHECKSUM_H

#include <arpa/inet.h>

#include "wire.h"

/* Adds `length` bytes, which must begin at an even offset of what is summed. */
uint64_t sum_bytes(const uint8_t *bytes, size_t length, uint64_t sum);

static inline uint64_t sum_number(uint16_t number, uint64_t sum)
{
    return sum + htons(number);
}

/* The sum as one word, not complemented. */
static inline uint16_t sum_fold(uint64_t sum)
{
    sum = (sum & 0xffffffff) + (sum >> 32);
    sum = (sum & 0xffffffff) + (sum >> 32);
    uint32_t folded = (uint32_t)(sum & 0xffff) + (uint32_t)(sum >> 16);
    folded = (folded & 0xffff) + (folded >> 16);
    return (uint16_t)((folded & 0xffff) + (folded >> 16));
}

/* Writes a word that `sum_fold` made. */
static inline void sum_store(uint8_t *field, uint16_t word)
{
    memcpy(field, &word, sizeof word);
}

/* The addresses, the protocol and the length of what follows the header (RFC 9293 section 3.1, RFC 768). */
uint64_t sum_pseudo_header(const uint8_t *ip, uint8_t protocol, size_t l4_length);

/* Computes the checksum of an IPv4 header and writes it. */
void finish_ip_checksum(uint8_t *ip, size_t header_length);

#endif
