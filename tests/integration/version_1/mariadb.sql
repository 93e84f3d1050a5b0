CREATE TABLE `readings` (
  `stream` varchar(32) NOT NULL,
  `seq` bigint(20) NOT NULL,
  `pat_id` bigint(20) NOT NULL,
  `date_admission` date NOT NULL,
  `measured_at` datetime NOT NULL,
  `parameter` varchar(64) NOT NULL,
  `value` double NOT NULL,
  PRIMARY KEY (`stream`,`seq`),
  UNIQUE KEY `pat_id` (`pat_id`,`date_admission`,`stream`,`measured_at`,`seq`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;
INSERT INTO `readings` VALUES ('0a0b0c0d',1,17,'2150-02-28','2150-03-01 07:00:00','heart_rate',60.0);
INSERT INTO `readings` VALUES ('5f2c9e01',1,17,'2150-02-28','2150-03-01 07:00:00','heart_rate',80.5);
INSERT INTO `readings` VALUES ('5f2c9e01',2,-9007199254740993,'2150-02-28','2150-03-01 07:00:00','heart_rate',91.25);
INSERT INTO `readings` VALUES ('5f2c9e01',3,17,'2150-02-28','2150-03-01 08:00:00','Größe ♥ it''s \\ "x"',0.3333333333333333);
INSERT INTO `readings` VALUES ('5f2c9e01',4,17,'2150-02-28','2150-03-01 08:00:00','HR',1e-300);
INSERT INTO `readings` VALUES ('5f2c9e01',5,-9007199254740993,'2150-02-28','2150-03-01 08:00:00','spo2',97.0);
INSERT INTO `readings` VALUES ('5f2c9e01',7,17,'2150-02-28','2150-03-01 09:00:00','hr',0.0);
INSERT INTO `readings` VALUES ('5f2c9e01',8,17,'2150-02-28','2150-03-01 10:00:00','heart_rate',0.30000000000000004);
INSERT INTO `readings` VALUES ('5f2c9e01',10,-9007199254740993,'2150-02-28','2150-03-01 10:00:00','heart_rate',88.0);
INSERT INTO `readings` VALUES ('5f2c9e01',12,17,'2150-02-28','2150-03-01 11:00:00','heart_rate',70.0);
CREATE TABLE `stays` (
  `stream` varchar(32) NOT NULL,
  `pat_id` bigint(20) NOT NULL,
  `date_admission` date NOT NULL,
  `age` double DEFAULT NULL,
  `date_discharge` date DEFAULT NULL,
  PRIMARY KEY (`pat_id`,`date_admission`,`stream`),
  UNIQUE KEY `stream` (`stream`,`date_discharge`,`date_admission`,`pat_id`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;
INSERT INTO `stays` VALUES ('5f2c9e01',-9007199254740993,'2150-02-28',63.2,NULL);
INSERT INTO `stays` VALUES ('0a0b0c0d',17,'2150-02-28',63.2,NULL);
INSERT INTO `stays` VALUES ('5f2c9e01',17,'2150-02-28',63.2,'2150-03-02');
CREATE TABLE `vitals` (
  `stream` varchar(32) NOT NULL,
  `pat_id` bigint(20) NOT NULL,
  `date_admission` date NOT NULL,
  `parameter` varchar(64) NOT NULL,
  `n` bigint(20) NOT NULL,
  `mean` double NOT NULL,
  `m2` double NOT NULL,
  `minimum` double NOT NULL,
  `maximum` double NOT NULL,
  `first_value` double NOT NULL,
  `first_at` datetime NOT NULL,
  `last_value` double NOT NULL,
  `last_at` datetime NOT NULL,
  `hours_mean` double NOT NULL,
  `hours_m2` double NOT NULL,
  `covariance` double NOT NULL,
  `mean_low` double NOT NULL,
  `seq` bigint(20) NOT NULL,
  PRIMARY KEY (`pat_id`,`date_admission`,`parameter`,`stream`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;
INSERT INTO `vitals` VALUES ('5f2c9e01',-9007199254740993,'2150-02-28','heart_rate',2,89.625,5.28125,88.0,91.25,91.25,'2150-03-01 07:00:00',88.0,'2150-03-01 10:00:00',32.5,4.5,-4.875,0.0,10);
INSERT INTO `vitals` VALUES ('5f2c9e01',-9007199254740993,'2150-02-28','spo2',1,97.0,0.0,97.0,97.0,97.0,'2150-03-01 08:00:00',97.0,'2150-03-01 08:00:00',32.0,0.0,0.0,0.0,5);
INSERT INTO `vitals` VALUES ('5f2c9e01',17,'2150-02-28','Größe ♥ it''s \\ "x"',1,0.3333333333333333,0.0,0.3333333333333333,0.3333333333333333,0.3333333333333333,'2150-03-01 08:00:00',0.3333333333333333,'2150-03-01 08:00:00',32.0,0.0,0.0,0.0,7);
INSERT INTO `vitals` VALUES ('5f2c9e01',17,'2150-02-28','HR',1,1e-300,0.0,1e-300,1e-300,1e-300,'2150-03-01 08:00:00',1e-300,'2150-03-01 08:00:00',32.0,0.0,0.0,0.0,7);
INSERT INTO `vitals` VALUES ('0a0b0c0d',17,'2150-02-28','heart_rate',1,60.0,0.0,60.0,60.0,60.0,'2150-03-01 07:00:00',60.0,'2150-03-01 07:00:00',31.0,0.0,0.0,0.0,1);
INSERT INTO `vitals` VALUES ('5f2c9e01',17,'2150-02-28','heart_rate',3,50.266666666666666,3800.126666666667,0.30000000000000004,80.5,80.5,'2150-03-01 07:00:00',70.0,'2150-03-01 11:00:00',33.333333333333336,8.66666666666666,-70.96666666666667,0.0,12);
INSERT INTO `vitals` VALUES ('5f2c9e01',17,'2150-02-28','hr',1,0.0,0.0,0.0,0.0,0.0,'2150-03-01 09:00:00',0.0,'2150-03-01 09:00:00',33.0,0.0,0.0,0.0,7);
CREATE TABLE `predictions` (
  `stream` varchar(32) NOT NULL,
  `seq` bigint(20) NOT NULL,
  `model` varchar(64) NOT NULL,
  `version` varchar(64) NOT NULL,
  `pat_id` bigint(20) NOT NULL,
  `date_admission` date NOT NULL,
  `measured_at` datetime NOT NULL,
  `features` longtext NOT NULL CHECK (json_valid(`features`)),
  `probability` double DEFAULT NULL,
  `reason` varchar(255) DEFAULT NULL,
  `created_at` datetime(3) NOT NULL,
  PRIMARY KEY (`stream`,`seq`,`model`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;
INSERT INTO `predictions` VALUES ('0a0b0c0d',1,'risk','1',17,'2150-02-28','2150-03-01 07:00:00','{"age":63.2,"heart_rate__mean":60.0,"spo2__last":null}',0.3933333333333333,NULL,'2026-11-27 04:37:00.125');
INSERT INTO `predictions` VALUES ('0a0b0c0d',1,'risk shadow','2024-05',17,'2150-02-28','2150-03-01 07:00:00','{"age":63.2,"heart_rate__mean":60.0,"spo2__last":null}',0.3933333333333333,NULL,'2026-11-27 04:37:00.125');
INSERT INTO `predictions` VALUES ('5f2c9e01',1,'risk','1',17,'2150-02-28','2150-03-01 07:00:00','{"age":63.2,"heart_rate__mean":80.5,"spo2__last":null}',0.41383333333333333,NULL,'2026-11-27 04:37:00.125');
INSERT INTO `predictions` VALUES ('5f2c9e01',1,'risk shadow','2024-05',17,'2150-02-28','2150-03-01 07:00:00','{"age":63.2,"heart_rate__mean":80.5,"spo2__last":null}',0.41383333333333333,NULL,'2026-11-27 04:37:00.125');
INSERT INTO `predictions` VALUES ('5f2c9e01',2,'risk','1',-9007199254740993,'2150-02-28','2150-03-01 07:00:00','{"age":null,"heart_rate__mean":91.25,"spo2__last":null}',0.4245833333333333,NULL,'2026-11-27 04:37:00.125');
INSERT INTO `predictions` VALUES ('5f2c9e01',2,'risk shadow','2024-05',-9007199254740993,'2150-02-28','2150-03-01 07:00:00','{"age":null,"heart_rate__mean":91.25,"spo2__last":null}',0.4245833333333333,NULL,'2026-11-27 04:37:00.125');
INSERT INTO `predictions` VALUES ('5f2c9e01',3,'risk','1',17,'2150-02-28','2150-03-01 08:00:00','{"age":63.2,"heart_rate__mean":80.5,"spo2__last":null}',0.41383333333333333,NULL,'2026-11-27 04:37:00.125');
INSERT INTO `predictions` VALUES ('5f2c9e01',3,'risk shadow','2024-05',17,'2150-02-28','2150-03-01 08:00:00','{"age":63.2,"heart_rate__mean":80.5,"spo2__last":null}',0.41383333333333333,NULL,'2026-11-27 04:37:00.125');
INSERT INTO `predictions` VALUES ('5f2c9e01',4,'risk','1',17,'2150-02-28','2150-03-01 08:00:00','{"age":63.2,"heart_rate__mean":80.5,"spo2__last":null}',0.41383333333333333,NULL,'2026-11-27 04:37:00.125');
INSERT INTO `predictions` VALUES ('5f2c9e01',4,'risk shadow','2024-05',17,'2150-02-28','2150-03-01 08:00:00','{"age":63.2,"heart_rate__mean":80.5,"spo2__last":null}',0.41383333333333333,NULL,'2026-11-27 04:37:00.125');
INSERT INTO `predictions` VALUES ('5f2c9e01',5,'risk','1',-9007199254740993,'2150-02-28','2150-03-01 08:00:00','{"age":63.2,"heart_rate__mean":91.25,"spo2__last":97.0}',0.4245833333333333,NULL,'2026-11-27 04:37:00.125');
INSERT INTO `predictions` VALUES ('5f2c9e01',5,'risk shadow','2024-05',-9007199254740993,'2150-02-28','2150-03-01 08:00:00','{"age":63.2,"heart_rate__mean":91.25,"spo2__last":97.0}',0.4245833333333333,NULL,'2026-11-27 04:37:00.125');
INSERT INTO `predictions` VALUES ('5f2c9e01',7,'risk','1',17,'2150-02-28','2150-03-01 09:00:00','{"age":63.2,"heart_rate__mean":80.5,"spo2__last":null}',0.41383333333333333,NULL,'2026-11-27 04:37:00.125');
INSERT INTO `predictions` VALUES ('5f2c9e01',7,'risk shadow','2024-05',17,'2150-02-28','2150-03-01 09:00:00','{"age":63.2,"heart_rate__mean":80.5,"spo2__last":null}',0.41383333333333333,NULL,'2026-11-27 04:37:00.125');
INSERT INTO `predictions` VALUES ('5f2c9e01',8,'risk','1',17,'2150-02-28','2150-03-01 10:00:00','{"age":63.2,"heart_rate__mean":40.4,"spo2__last":null}',NULL,'waiting for the model','2026-11-27 04:37:00.125');
INSERT INTO `predictions` VALUES ('5f2c9e01',8,'risk shadow','2024-05',17,'2150-02-28','2150-03-01 10:00:00','{"age":63.2,"heart_rate__mean":40.4,"spo2__last":null}',0.3737333333333333,NULL,'2026-11-27 04:37:00.125');
INSERT INTO `predictions` VALUES ('5f2c9e01',10,'risk','1',-9007199254740993,'2150-02-28','2150-03-01 10:00:00','{"age":63.2,"heart_rate__mean":89.625,"spo2__last":97.0}',NULL,'waiting for the model','2026-11-27 04:37:00.125');
INSERT INTO `predictions` VALUES ('5f2c9e01',10,'risk shadow','2024-05',-9007199254740993,'2150-02-28','2150-03-01 10:00:00','{"age":63.2,"heart_rate__mean":89.625,"spo2__last":97.0}',0.4229583333333333,NULL,'2026-11-27 04:37:00.125');
CREATE TABLE `pending` (
  `stream` varchar(32) NOT NULL,
  `seq` bigint(20) NOT NULL,
  `model` varchar(64) NOT NULL,
  PRIMARY KEY (`stream`,`seq`,`model`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;
INSERT INTO `pending` VALUES ('5f2c9e01',8,'risk');
INSERT INTO `pending` VALUES ('5f2c9e01',10,'risk');
CREATE TABLE `rejected` (
  `stream` varchar(32) NOT NULL,
  `seq` bigint(20) NOT NULL,
  `pat_id` bigint(20) DEFAULT NULL,
  `reason` varchar(255) NOT NULL,
  `message` mediumtext NOT NULL,
  `rejected_at` datetime(3) NOT NULL,
  PRIMARY KEY (`stream`,`seq`),
  UNIQUE KEY `pat_id` (`pat_id`,`stream`,`seq`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;
INSERT INTO `rejected` VALUES ('5f2c9e01',6,NULL,'JSON is malformed: object keys must be strings (byte 2)','{ no json \\ '' °C','2026-11-27 04:37:00.125');
INSERT INTO `rejected` VALUES ('5f2c9e01',9,17,'temperature 99999.0 is not above 26 and up to 45 °C','{"type": "reading", "pat_id": 17, "age": 63.2, "date_admission": "2150-02-28", "date_discharge": null, "day": "2150-03-01", "hour": 10, "parameter": "temperature", "value": 99999}','2026-11-27 04:37:00.125');
CREATE TABLE `positions` (
  `stream` varchar(32) NOT NULL,
  `part` int(11) NOT NULL,
  `seq` bigint(20) NOT NULL,
  `vitals_seq` bigint(20) NOT NULL,
  `committed_at` datetime(3) NOT NULL,
  PRIMARY KEY (`stream`,`part`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;
INSERT INTO `positions` VALUES ('0a0b0c0d',0,1,1,'2026-11-27 04:37:00.125');
INSERT INTO `positions` VALUES ('5f2c9e01',0,12,12,'2026-11-27 04:37:00.125');
INSERT INTO `positions` VALUES ('5f2c9e01',1,10,10,'2026-11-27 04:37:00.125');
CREATE TABLE `models` (
  `model` varchar(64) NOT NULL,
  `version` varchar(64) NOT NULL,
  `role` varchar(16) NOT NULL,
  `features` longtext NOT NULL CHECK (json_valid(`features`)),
  `seen_at` datetime(3) NOT NULL,
  PRIMARY KEY (`model`,`version`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;
INSERT INTO `models` VALUES ('risk','1','champion','[{"name":"age","parameter":null,"aggregation":null,"window_hours":null,"fill":null,"required":false},{"name":"heart_rate__mean","parameter":"heart_rate","aggregation":"mean","window_hours":null,"fill":null,"required":true},{"name":"spo2__last","parameter":"spo2","aggregation":"last","window_hours":null,"fill":null,"required":false}]','2026-11-27 04:37:00.125');
INSERT INTO `models` VALUES ('risk shadow','2024-05','shadow','[{"name":"age","parameter":null,"aggregation":null,"window_hours":null,"fill":null,"required":false},{"name":"heart_rate__mean","parameter":"heart_rate","aggregation":"mean","window_hours":null,"fill":null,"required":true},{"name":"spo2__last","parameter":"spo2","aggregation":"last","window_hours":null,"fill":null,"required":false}]','2026-11-27 04:37:00.125');
