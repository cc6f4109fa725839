/* The bytes of the wire: byte order, offsets and constants, each with its source.
 *
 * Nothing here casts a buffer to a struct: packets lie at any address, so every field is read and written byte by
 * byte or by memcpy, which compilers turn into single instructions.
 */
#ifndef OVERLAYD_WIRE_H
#define OVERLAYD_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Lengths in bytes. */
#define IPV4_MIN_HEADER 20   /* RFC 791 section 3.1 */
#define IPV4_MAX_PACKET 65535
#define TCP_MIN_HEADER 20    /* RFC 9293 section 3.1 */
#define UDP_HEADER 8         /* RFC 768 */
#define MAX_HEADERS 120      /* the longest IPv4 header and the longest TCP header, 60 each */
#define ENCAP_OVERHEAD 28    /* outer IPv4 header without options and UDP header */

/* IPv4, RFC 791 section 3.1. */
#define IPV4_TOS 1
#define IPV4_TOTAL_LENGTH 2
#define IPV4_ID 4
#define IPV4_FRAGMENT 6
#define IPV4_TTL 8
#define IPV4_PROTOCOL 9
#define IPV4_CHECKSUM 10
#define IPV4_SOURCE 12
#define IPV4_DESTINATION 16
#define IPV4_DONT_FRAGMENT 0x4000
#define IPV4_MORE_FRAGMENTS 0x2000
#define IPV4_FRAGMENT_OFFSET 0x1fff

#define PROTOCOL_ICMP 1
#define PROTOCOL_TCP 6
#define PROTOCOL_UDP 17

/* TCP, RFC 9293 section 3.1, from the beginning of its header. */
#define TCP_SEQUENCE 4
#define TCP_ACKNOWLEDGEMENT 8
#define TCP_DATA_OFFSET 12
#define TCP_FLAGS 13
#define TCP_WINDOW 14
#define TCP_CHECKSUM 16
#define TCP_URGENT 18
#define TCP_FIN 0x01
#define TCP_PSH 0x08
#define TCP_ACK 0x10
#define TCP_CWR 0x80

/* UDP, RFC 768, from the beginning of its header. */
#define UDP_LENGTH 4
#define UDP_CHECKSUM 6

/* struct virtio_net_hdr, linux/virtio_net.h; a TUN device has it in the machine's byte order. */
#define VNET_HEADER 10
#define VNET_FLAGS 0
#define VNET_GSO_TYPE 1
#define VNET_HEADER_LENGTH 2
#define VNET_GSO_SIZE 4
#define VNET_CSUM_START 6
#define VNET_CSUM_OFFSET 8
#define VNET_NEEDS_CSUM 1
#define VNET_GSO_NONE 0
#define VNET_GSO_TCPV4 1
#define VNET_GSO_UDP_L4 5
#define VNET_GSO_ECN 0x80 /* a flag beside the type: the first segment has CWR */

static inline uint16_t load_be16(const uint8_t *p)
{
    return (uint16_t)(p[0] << 8 | p[1]);
}

static inline uint32_t load_be32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static inline void store_be16(uint8_t *p, uint16_t value)
{
    p[0] = (uint8_t)(value >> 8);
    p[1] = (uint8_t)value;
}

static inline void store_be32(uint8_t *p, uint32_t value)
{
    store_be16(p, (uint16_t)(value >> 16));
    store_be16(p + 2, (uint16_t)value);
}

static inline uint16_t load_native16(const uint8_t *p)
{
    uint16_t value;
    memcpy(&value, p, sizeof value);
    return value;
}

static inline void store_native16(uint8_t *p, uint16_t value)
{
    memcpy(p, &value, sizeof value);
}

#endif
