"""The pool's slots, who has one keeps it; and who is where."""

import pathlib
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "ansible/filter_plugins"))
import stickyport  # noqa: E402


class Slots(unittest.TestCase):
    def test_the_first_table_has_as_many_free_slots_as_instances(self):
        self.assertEqual(stickyport.slots([], [0, 1, 32, 33]), [0, 1, 32, 33, None, None, None, None])

    def test_a_new_instance_takes_a_free_slot_and_moves_nobody(self):
        self.assertEqual(stickyport.slots([0, 32, None, None], [0, 1, 32]), [0, 32, 1, None])

    def test_one_that_comes_back_finds_its_own(self):
        table = stickyport.slots([0, 1, 32, 33], [0, 32])
        self.assertEqual(stickyport.slots(table, [0, 1, 32, 33]), [0, 1, 32, 33])

    def test_a_slot_that_was_somebodys_is_taken_last(self):
        self.assertEqual(stickyport.slots([0, 1, None], [0, 2]), [0, 1, 2])
        self.assertEqual(stickyport.slots([0, 1], [0, 2]), [0, 2])

    def test_a_full_table_doubles(self):
        self.assertEqual(stickyport.slots([0, 1], [0, 1, 2]), [0, 1, 2, None])

    def test_another_size_makes_it_anew(self):
        self.assertEqual(stickyport.slots([5, None, 7, None], [5, 7], 2), [5, 7])

    def test_the_size_that_it_has_changes_nothing(self):
        self.assertEqual(stickyport.slots([None, 5, None, 7], [5, 7], 4), [None, 5, None, 7])


class Homeless(unittest.TestCase):
    HOSTVARS = {"app1": {"stickyport_host_id": 0}, "app3": {"stickyport_host_id": "2"}}

    def test_nodes_whose_host_was_deleted_are_named_and_those_of_a_smaller_host_not(self):
        self.assertEqual(stickyport.homeless([0, 31, 32, 33, 64], ["app1", "app3"], self.HOSTVARS), {1: [32, 33]})
        self.assertEqual(stickyport.homeless([], ["app1"], self.HOSTVARS), {})

    def test_somebody_may_say_that_it_is_dead(self):
        for dead in ("1", 1, "5, 1"):
            self.assertEqual(stickyport.homeless([0, 32, 33], ["app1"], self.HOSTVARS, dead), {})
        self.assertEqual(stickyport.homeless([0, 32, 33], ["app1"], self.HOSTVARS, "11"), {1: [32, 33]})


class Table(unittest.TestCase):
    def test_it_is_the_later_one_where_a_run_reached_only_some_proxies(self):
        earlier = stickyport.slots([], [0, 1, 32])
        later = stickyport.slots(earlier, [0, 1, 2, 3, 32, 33, 34])
        self.assertGreater(len(later), len(earlier))
        self.assertEqual(stickyport.table([earlier, later]), later)
        self.assertEqual(stickyport.table([later, earlier, earlier]), later)

    def test_it_is_nobodys_where_a_slot_has_two_owners(self):
        self.assertIsNone(stickyport.table([[0, 1], [0, 2]]))
        self.assertIsNone(stickyport.table([[0, None, 2], [0, 1, None]]))

    def test_there_is_none_before_the_first_deploy(self):
        self.assertEqual(stickyport.table([]), [])


class Nodes(unittest.TestCase):
    def test_they_are_numbered_over_the_fleet_and_sorted(self):
        hostvars = {
            "b": {"stickyport_address": "10.0.0.2", "stickyport_host_id": 0, "stickyport_instances_per_host": 1},
            "a": {"stickyport_address": "10.0.0.1", "stickyport_host_id": 1, "stickyport_instances_per_host": 2},
        }
        found = [(each["node"], each["host"], each["port"]) for each in stickyport.nodes(["a", "b"], hostvars)]
        self.assertEqual(found, [(0, "b", 3131), (32, "a", 3131), (33, "a", 3132)])

    def test_they_are_reached_where_ansible_reaches_the_host_unless_the_inventory_says_otherwise(self):
        self.assertEqual(stickyport.address("a", {"a": {"ansible_host": "192.0.2.1"}}), "192.0.2.1")
        self.assertEqual(stickyport.address("a", {"a": {"ansible_host": "192.0.2.1", "stickyport_address": "10.0.0.1"}}), "10.0.0.1")
        self.assertEqual(stickyport.address("a", {"a": {}}), "")

    def test_a_host_and_one_of_its_instances_can_be_chosen(self):
        for text, host, chosen in [("a", "a", [0, 1, 2]), ("a:1", "a", [1]), ("b:0, a:2", "a", [2]), ("b", "a", [])]:
            self.assertEqual(stickyport.chosen(text, host, 3), chosen, (text, host))
        nodes = [stickyport.node(instance, host, "", number) for number, host in enumerate("ab") for instance in range(3)]
        for text, drained in [("a", [0, 1, 2]), ("a:1", [1]), ("b:0, a:2", [2, 32]), ("", [])]:
            self.assertEqual(stickyport.drained(nodes, text), drained, text)


class Settings(unittest.TestCase):
    def test_times_and_sizes_are_read_as_the_program_reads_them(self):
        self.assertEqual([stickyport.seconds(text, "25s") for text in ("1m", "500ms", "2h", "30 s")], [60, 1, 7200, 30])
        self.assertEqual([stickyport.size(text, "7") for text in (5, "5MB", "64KiB")], [5, 5_000_000, 65_536])

    def test_one_that_is_mistyped_is_left_to_the_program(self):
        for text in ("", 25, "1.5s", "5 sec", None, True, [5]):
            self.assertEqual(stickyport.seconds(text, "25s"), 25, text)
        for text in ("", "1mb", "much", -1):
            self.assertEqual(stickyport.size(text, "7"), 7, text)


if __name__ == "__main__":
    unittest.main()
